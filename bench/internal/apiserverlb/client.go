package apiserverlb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// What client-go asks a silent HTTP/2 connection after, and for how long it waits.
const (
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// client speaks as client-go does, over one connection of its own.
func (p *place) client(at netip.AddrPort) *http.Client { return newClient(p.dial, p.trust, at) }

// dial connects in the place.
func (p *place) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if p.ns == nil {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return p.ns.DialContext(ctx, network, address)
}

// newClient leads to one address, whatever its URLs say.
func newClient(dial func(context.Context, string, string) (net.Conn, error), trust *tls.Config, at netip.AddrPort) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, at.String()) },
		TLSClientConfig:   trust.Clone(),
		ForceAttemptHTTP2: true,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}}
}

// get returns which server has answered, and an error for an answer but 200.
func get(ctx context.Context, client *http.Client, url string) (server int, err error) {
	res, err := open(ctx, client, url)
	if err != nil {
		return -1, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return -1, fmt.Errorf("read answer: %w", err)
	}
	return whose(res.Header), nil
}

// open is get for what goes on: the caller closes the body.
func open(ctx context.Context, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err == nil && res.StatusCode != http.StatusOK {
		res.Body.Close()
		err = &statusError{url: url, status: res.Status, later: laterThan(res)}
	}
	return res, err
}

// statusError is an answer but 200.
type statusError struct {
	url, status string
	later       bool // client-go asks again
}

func (e *statusError) Error() string { return "get " + e.url + ": " + e.status }

// laterThan says whether client-go takes the answer for one that asks it to come again later (rest/with_retry.go).
func laterThan(res *http.Response) bool {
	_, err := strconv.Atoi(res.Header.Get("Retry-After"))
	return err == nil && (res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= http.StatusInternalServerError)
}

// asksAgain says whether client-go sends a GET that failed so again by itself (rest/request.go).
func asksAgain(err error) bool {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.later
	}
	return utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err) || utilnet.IsHTTP2ConnectionLost(err)
}
