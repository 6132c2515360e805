package load

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"varco.dev/bench/internal/fakeapi"
	"varco.dev/bench/internal/probe"
)

// piece is how much of a body is read or written at once.
const piece = 256 << 10

// Download asks for a body and returns how long it took, from the request to its last byte.
func Download(ctx context.Context, to netip.AddrPort, path string, size int64) (time.Duration, error) {
	c, err := dial(ctx, to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, to); err != nil {
		return 0, fmt.Errorf("ask for body: %w", err)
	}
	res, err := answer(c)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	// Without the struct, io.Discard would read pieces of 8 KiB.
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, make([]byte, piece))
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes, want %d", n, size)
	}
	if err != nil {
		return 0, fmt.Errorf("read body: %w", err)
	}
	return time.Since(began), nil
}

// Upload sends a body of known length and returns how long it took, from the request to the answer, which must say that
// all of it has come.
func Upload(ctx context.Context, to netip.AddrPort, path string, size int64) (time.Duration, error) {
	c, err := dial(ctx, to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		path, to, size); err != nil {
		return 0, fmt.Errorf("announce body: %w", err)
	}
	b := make([]byte, piece)
	for left := size; left > 0; left -= int64(len(b)) {
		b = b[:min(int64(len(b)), left)]
		if _, err := c.Write(b); err != nil {
			return 0, fmt.Errorf("send body: %w", err)
		}
	}
	res, err := answer(c)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var status struct{ Message string }
	if err := json.NewDecoder(res.Body).Decode(&status); err != nil {
		return 0, fmt.Errorf("read answer to body: %w", err)
	}
	if want := fakeapi.Message(size); status.Message != want {
		return 0, fmt.Errorf("send body: the server got %q, want %q", status.Message, want)
	}
	return time.Since(began), nil
}

// dial connects until ctx ends, which ends the connection too.
func dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return &ended{Conn: c, stop: stop}, nil
}

// ended is a connection that lets go of its context when it is closed.
type ended struct {
	net.Conn
	stop func() bool
}

func (e *ended) Close() error {
	e.stop()
	return e.Conn.Close()
}

// answer reads the head of a response that must be 200.
func answer(c net.Conn) (*http.Response, error) {
	res, err := http.ReadResponse(bufio.NewReaderSize(c, piece), nil)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 300)) // what there is of it
		res.Body.Close()
		return nil, fmt.Errorf("%w: %s: %s", errOdd, res.Status, text)
	}
	return res, nil
}

// retryPause is between two attempts to connect to a server that starts.
const retryPause = time.Millisecond

// startLimit is when a start is given up.
const startLimit = 30 * time.Second

// FirstAnswer asks until the server answers with 200 for the first time. It gives up when check returns an error.
func FirstAnswer(ctx context.Context, to netip.AddrPort, path string, check func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("no answer in %s", startLimit))
	defer cancel()
	for {
		err := ask(ctx, to, path)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for first answer: %w; the last attempt: %w", context.Cause(ctx), err)
		}
		if err := check(); err != nil {
			return err
		}
		probe.Sleep(retryPause)
	}
}

func ask(ctx context.Context, to netip.AddrPort, path string) error {
	c, err := dial(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, to); err != nil {
		return err
	}
	res, err := answer(c)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
