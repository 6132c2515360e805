package balance

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"

	"varco.dev/internal/apiserverproxy/locate"
)

// CookieName is the name of the cookie that keeps a client at one endpoint.
const CookieName = "varco-backend"

// tagSize is how many bytes of a hash tell endpoints apart.
const tagSize = 16

// tags are the cookies of endpoints. A tag is an HMAC-SHA256 of the endpoint's address, with the destination's key as key: it
// is the same for all replicas, says nothing of the address to a client who does not know the Service's UID, and is worth
// nothing at another Service, or at one that was made again.
type tags struct {
	addrs map[string]netip.AddrPort
	tags  map[netip.AddrPort]string
}

// tagsOf returns nil if the destination wants no cookies.
func tagsOf(d *locate.Destination) *tags {
	if !d.Cookie {
		return nil
	}
	of := hmac.New(sha256.New, []byte(d.Key))
	t := &tags{map[string]netip.AddrPort{}, map[netip.AddrPort]string{}}
	for _, e := range d.Endpoints {
		of.Reset()
		b, _ := e.Addr.MarshalBinary() // never fails
		of.Write(b)
		tag := base64.RawURLEncoding.EncodeToString(of.Sum(nil)[:tagSize])
		t.addrs[tag], t.tags[e.Addr] = e.Addr, tag
	}
	return t
}

// presented returns the endpoint that a request's cookie stands for; the zero value: it has none that does.
func (t *tags) presented(r *http.Request) netip.AddrPort {
	for _, c := range r.CookiesNamed(CookieName) {
		if a, ok := t.addrs[c.Value]; ok {
			return a
		}
	}
	return netip.AddrPort{}
}

// Cookie returns the cookie to be set on the answer, for a path (the prefix of the proxied URL); nil: none, since the
// destination wants none or the client has the right one. It is to be asked after the round trip has succeeded.
func (x *Exchange) Cookie(path string) *http.Cookie {
	if x.pool == nil || !x.d.Cookie || !x.by.IsValid() || x.by == x.want.Stay {
		return nil
	}
	t := x.pool.tags.Load()
	if t == nil || t.tags[x.by] == "" {
		return nil
	}
	return &http.Cookie{
		Name: CookieName, Value: t.tags[x.by], Path: path, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.secure,
	}
}

// StripCookie takes our cookie out of a request's header: targets are not told. The slices of the header are replaced, not
// changed.
func StripCookie(h http.Header) {
	lines := h["Cookie"]
	if !strings.Contains(strings.Join(lines, ";"), CookieName) {
		return
	}
	var kept []string
	for _, line := range lines {
		var left []string
		for part := range strings.SplitSeq(line, ";") {
			if name, _, _ := strings.Cut(part, "="); strings.TrimSpace(name) != CookieName {
				left = append(left, part)
			}
		}
		if line = strings.TrimSpace(strings.Join(left, ";")); line != "" {
			kept = append(kept, line)
		}
	}
	if kept == nil {
		delete(h, "Cookie")
	} else {
		h["Cookie"] = kept
	}
}
