package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

type httpSession struct {
	client *http.Client
	url    string
}

func newHTTP(cfg Config, u *url.URL) *httpSession {
	t := &http.Transport{
		DialContext:       cfg.Dial,
		DisableKeepAlives: !cfg.KeepAlive,
		// The test server signs its certificate itself, and its name is nowhere known.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}
	to := *u
	if to.Scheme == "h2c" {
		to.Scheme = "http"
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return &httpSession{
		url: to.String(),
		client: &http.Client{
			Transport:     t,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// ask counts a status of 400 and more, and a body that breaks off, as a failure.
func (s *httpSession) ask(ctx context.Context) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return answer{}, fmt.Errorf("read body: %w", err)
	}
	if resp.StatusCode >= 400 {
		return answer{}, fmt.Errorf("status %d", resp.StatusCode)
	}
	return answer{resp.Header.Get("X-Pod"), resp.Header.Get("X-Client")}, nil
}

func (s *httpSession) close() { s.client.CloseIdleConnections() }
