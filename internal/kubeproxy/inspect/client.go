package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
)

// maxErrorText bounds what is read of an answer that is an error, in bytes.
const maxErrorText = 4 << 10

// FetchStatus asks the kube-proxy behind the socket for its status.
func FetchStatus(ctx context.Context, socket string) (s Status, err error) {
	err = fetch(ctx, socket, "/status", &s)
	return s, err
}

// FetchExplanation asks the kube-proxy behind the socket what happens to a connection.
func FetchExplanation(ctx context.Context, socket string, q Query) (e Explanation, err error) {
	err = fetch(ctx, socket, "/explain?"+q.encode().Encode(), &e)
	return e, err
}

func fetch(ctx context.Context, socket, path string, into any) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: answerTime}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kube-proxy"+path, nil)
	if err != nil {
		return fmt.Errorf("ask kube-proxy: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return explainDial(socket, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorText))
		return fmt.Errorf("kube-proxy answers: %s", strings.TrimSpace(string(text)))
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("read kube-proxy's answer: %w", err)
	}
	return nil
}

// explainDial says what to do where no kube-proxy can be asked.
func explainDial(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no kube-proxy listens at %s: is varco kube-proxy running on this node, with this --status-socket? (%w)", socket, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is for root alone: %w", socket, err)
	}
	return fmt.Errorf("ask kube-proxy at %s: %w", socket, err)
}

func portOnly(a netip.AddrPort) string { return fmt.Sprintf(":%d", a.Port()) }
