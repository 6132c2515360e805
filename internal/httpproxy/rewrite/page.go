package rewrite

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/api/errors"
)

// Page says where an answer comes from, and below what it is moved. The zero value of each field means what its comment says.
type Page struct {
	// Scheme and Host are put into the URLs that are moved: "https", "10.0.0.1:6443". Both empty: moved URLs begin with the
	// prefix alone, or keep the client's host if they had it. That is how kube-apiserver answers, whose requests carry neither,
	// and what its conformance tests compare with, byte by byte.
	Scheme, Host string
	// Hostless has moved URLs begin with the prefix also if they had the client's host: it is one that the client does not know.
	// Scheme and Host are empty then.
	Hostless bool
	// Prefix is the path below which the answer is moved, escaped as the client sent it, without a slash at its end:
	// "/api/v1/namespaces/default/services/web/proxy". Required.
	Prefix string
	// TargetHost is the host and port that answered: "10.244.1.7:8080". Empty: that of the answer's request URL.
	TargetHost string
	// RequestHost is the Host header that the target was sent, most often the client's own. Empty: that of the answer's request.
	RequestHost string
	// RequestPath is the escaped path that the target was asked for; empty if the client's path ended with the prefix.
	RequestPath string
}

// Response moves an answer below a prefix: its header at once, and HTML while the new Body is read. What it does to whom stands
// in the package's comment. It changes the answer's header map, Trailer included, ContentLength and Body, whose owner stays
// the caller: closing the new Body closes the old one. An error is a Status of code 500, with Kubernetes' words, for a Location
// that is no URL; the answer is useless then, and its Body still to be closed.
func Response(resp *http.Response, p Page) error {
	m := newMover(p, resp.Request)
	for _, name := range []string{"Access-Control-Allow-Credentials", "Access-Control-Allow-Headers",
		"Access-Control-Allow-Methods", "Access-Control-Allow-Origin"} {
		resp.Header.Del(name)
	}
	if err := m.location(resp.Header); err != nil {
		return err
	}
	m.header(resp.Header)
	m.cookies(resp.Header)
	m.page(resp)
	return nil
}

// mover moves URLs of one answer. It has no state but foreign.
type mover struct {
	Page
	prefix  string // unescaped
	origin  string // "https://host:port", "//host:port" or "": none is put in
	foreign bool   // a <base> has named another host: what names none is not the target's any more
}

func newMover(p Page, r *http.Request) *mover {
	if r != nil && r.URL != nil && p.TargetHost == "" {
		p.TargetHost = r.URL.Host
	}
	if r != nil && p.RequestHost == "" {
		p.RequestHost = r.Host
	}
	m := &mover{Page: p}
	m.Prefix = strings.TrimRight(p.Prefix, "/")
	m.prefix = unescaped(m.Prefix)
	m.origin = origin(p.Scheme, p.Host)
	return m
}

func origin(scheme, host string) string {
	switch {
	case host == "":
		return "" // a scheme without a host would make no URL
	case scheme == "":
		return "//" + host
	}
	return scheme + "://" + host
}

// unescaped returns a path without its escapes, or as it is if they are broken.
func unescaped(path string) string {
	if strings.IndexByte(path, '%') < 0 {
		return path
	}
	if out, err := url.PathUnescape(path); err == nil {
		return out
	}
	return path
}

// badLocation are Kubernetes' words.
const badLocation = "error trying to parse Location header: %w"

// location moves the Location field. As in Kubernetes, what is no URL fails, and what is one is written as package url does.
func (m *mover) location(h http.Header) error {
	value := h.Get("Location")
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil {
		return errors.NewInternalError(fmt.Errorf(badLocation, err))
	}
	moved, _ := m.move(written(u))
	h["Location"] = []string{moved}
	return nil
}
