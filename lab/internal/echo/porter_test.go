package echo_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"varco.dev/lab/internal/echo"
)

// freePort is one that nobody listens at now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

func TestPorter(t *testing.T) {
	plain, secure := freePort(t), freePort(t)
	for _, tc := range []struct {
		json       bool
		body, kind string
	}{
		{false, `<a href="/x">x</a>`, "text/html; charset=utf-8"},
		{true, `{"Method":"GET","Body":"\u003ca href=\"/x\"\u003ex\u003c/a\u003e"}`, "application/json"},
	} {
		p := echo.Porter{
			Plain: map[string]string{plain: `<a href="/x">x</a>`}, TLS: map[string]string{secure: `<a href="/x">x</a>`},
			JSON: tc.json, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		for _, url := range []string{"http://127.0.0.1:" + plain + "/any", "https://127.0.0.1:" + secure + "/any"} {
			resp, body := getUntilUp(t, url)
			if got := resp.Header.Get("Content-Type"); got != tc.kind || strings.TrimSpace(body) != tc.body {
				t.Errorf("%s: %s %q, want %s %q", url, got, body, tc.kind, tc.body)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended: %v", err)
		}
	}
}

func getUntilUp(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { // between two tries
		if resp, err := client().Get(url); err == nil {
			resp.Body.Close()
			break
		}
	}
	return get(t, client(), url)
}

func TestPorterTellsOfAPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	p := echo.Porter{Plain: map[string]string{port: "x"}, Log: slog.New(slog.DiscardHandler)}
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "serve port "+port) {
		t.Errorf("error %v, want one of the port", err)
	}
}
