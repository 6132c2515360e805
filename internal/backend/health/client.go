package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	userAgent = "varco-apiserver-lb-probe"
	// renewAfter is how long a connection is kept: only new ones show whether new ones can be made, and with which certificate. A
	// thousand nodes make 67 handshakes a second by it, of which each costs an API server about a millisecond.
	renewAfter = 15 * time.Second
	// mostBody is how much of an answer is read, for its failing checks. An API server names some forty in 3 KiB. If there is more,
	// the connection is not kept.
	mostBody = 8 << 10
	// mostAnswer bounds an answer with its header, as net/http does the header of a request (DefaultMaxHeaderBytes is 1 MiB).
	mostAnswer = 64 << 10
)

// client asks over HTTP/1.1 by hand. net/http's Transport does not tell at which stage a request failed, on which connection, and
// whether that was a kept one, which is all that matters here; it has two goroutines for each connection that is idle; and it
// makes 57 allocations for a request, where this makes 16.
type client struct {
	given   *tls.Config // as Config.TLS returned it
	tls     *tls.Config // for this backend
	link    *link       // kept; nil: there is none
	request []byte
	body    []byte
}

// link is a connection that is kept from probe to probe.
type link struct {
	conn    *tls.Conn
	limit   *io.LimitedReader // what may be read of it
	reader  *bufio.Reader     // of limit
	used    bool
	until   time.Time   // then it is renewed
	release func() bool // see context.AfterFunc
}

// answer is what one try has found.
type answer struct {
	Observation
	timeout bool
	overdue time.Duration // how late we noticed the timeout
}

// hangUp closes the connection that is kept.
func (c *client) hangUp() {
	if c.link != nil {
		c.link.close()
		c.link = nil
	}
}

func (l *link) close() {
	l.release()
	l.conn.NetConn().Close() // no close_notify, which could block
}

// prepare reads credentials and writes the request; if they are not those of the kept connection any more, that is closed.
func (p *prober) prepare(ctx context.Context) (*tls.Config, error) {
	given, err := p.config.TLS(ctx)
	if err != nil {
		return nil, err
	}
	if given != p.given {
		p.given, p.tls = given, p.tlsFor(given)
		p.hangUp()
	}
	return p.tls, p.write()
}

// tlsFor returns the configuration for one backend.
func (p *prober) tlsFor(given *tls.Config) *tls.Config {
	c := given.Clone()
	c.NextProtos = []string{"http/1.1"}
	if c.ServerName == "" {
		c.ServerName = p.addr.Addr().Unmap().WithZone("").String()
	}
	return c
}

// write makes the request.
func (p *prober) write() error {
	token := ""
	if p.config.Token != nil {
		var err error
		if token, err = p.config.Token(); err != nil {
			return err
		}
		if strings.ContainsAny(token, "\r\n") {
			return errors.New("the token has more than one line")
		}
	}
	b := append(p.request[:0], "GET "...)
	b = append(append(b, p.config.Path...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, p.host...), "\r\nUser-Agent: "+userAgent+"\r\nAccept: */*\r\n"...)
	if token != "" {
		b = append(append(append(b, "Authorization: Bearer "...), token...), "\r\n"...)
	}
	p.request = append(b, "\r\n"...)
	return nil
}

// connect makes a connection and keeps it. If it cannot, that is the answer.
func (p *prober) connect(ctx context.Context, config *tls.Config, within time.Duration) (answer, bool) {
	deadline := time.Now().Add(within)
	dialing, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	raw, err := p.config.Dial(dialing, p.addr)
	if err != nil {
		return failure(dialResult(err), "connecting", err, deadline), false
	}
	release := context.AfterFunc(ctx, func() { raw.Close() })
	raw.SetDeadline(deadline)
	conn := tls.Client(raw, config)
	if err := conn.Handshake(); err != nil {
		release()
		raw.Close()
		return failure(handshakeResult(err), "TLS handshake", err, deadline), false
	}
	limit := &io.LimitedReader{R: conn}
	p.link = &link{conn: conn, limit: limit, reader: bufio.NewReader(limit), until: p.renewal(conn), release: release}
	return answer{}, true
}

// renewal returns until when a connection may be kept: not longer than its certificate is valid.
func (p *prober) renewal(conn *tls.Conn) time.Time {
	until := time.Now().Add(time.Duration(float64(renewAfter) * (1 - jitter + 2*jitter*p.config.Random())))
	certs := conn.ConnectionState().PeerCertificates
	if len(certs) > 0 && certs[0].NotAfter.Before(until) {
		return certs[0].NotAfter
	}
	return until
}

// ask asks on the connection that is kept. stale tells that it had been in use before and was closed meanwhile, which says nothing
// about the backend.
func (p *prober) ask(within time.Duration) (a answer, stale bool) {
	l, start := p.link, time.Now()
	deadline := start.Add(within)
	l.conn.SetDeadline(deadline)
	l.limit.N = mostAnswer
	resp, err := l.exchange(p.request)
	used := l.used
	l.used = true
	switch {
	case err != nil:
		p.hangUp()
		a = failure(askResult(err), "GET "+p.config.Path, err, deadline)
		return a, used && !a.timeout
	case used && resp.StatusCode == http.StatusRequestTimeout: // of the time that it was idle, as Transport treats it
		p.hangUp()
		return answer{}, true
	}
	latency := time.Since(start)
	body := p.read(resp)
	return answer{Observation: Observation{Result: statusResult(resp.StatusCode), Detail: p.detail(resp, body), Latency: latency}}, false
}

// exchange writes a request and reads the header of the answer.
func (l *link) exchange(request []byte) (*http.Response, error) {
	if _, err := l.conn.Write(request); err != nil {
		return nil, err
	}
	if _, err := l.reader.Peek(1); err != nil {
		return nil, err
	}
	return http.ReadResponse(l.reader, nil)
}

// read returns the body of an answer, and hangs up unless all of it was read and the backend will go on.
func (p *prober) read(resp *http.Response) []byte {
	if p.body == nil {
		p.body = make([]byte, mostBody)
	}
	n, err := io.ReadFull(resp.Body, p.body)
	if err != io.EOF && err != io.ErrUnexpectedEOF || resp.Close || resp.StatusCode < 200 {
		p.hangUp()
	}
	return p.body[:n]
}

// detail returns what an answer says, in one line for people.
func (p *prober) detail(resp *http.Response, body []byte) string {
	if resp.StatusCode == http.StatusOK {
		return "ready"
	}
	text := fmt.Sprintf("%s answers %d", p.config.Path, resp.StatusCode)
	if failing := failing(string(body)); failing != "" {
		text += ": " + failing
	}
	return text
}

// failing returns the checks that an API server names as failing: lines such as "[-]etcd failed: reason withheld".
func failing(body string) string {
	var out []string
	for line := range strings.Lines(body) {
		if check, ok := strings.CutPrefix(line, "[-]"); ok {
			out = append(out, strings.TrimSpace(check))
		}
	}
	return printable(strings.Join(out, ", "))
}

// mostDetail bounds what a backend can have us log, in bytes.
const mostDetail = 300

// printable cuts a text, and replaces what would garble a log.
func printable(s string) string {
	if len(s) > mostDetail {
		s = s[:mostDetail] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// failure returns the answer for an error.
func failure(r Result, doing string, err error, deadline time.Time) answer {
	a := answer{Observation: Observation{Result: r, Detail: doing + ": " + printable(err.Error())}, timeout: isTimeout(err)}
	if a.timeout {
		a.overdue = time.Since(deadline)
	}
	return a
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
