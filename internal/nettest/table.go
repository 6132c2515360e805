package nettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Limits of one row of a packet table.
const (
	tries       = 48                     // connections per row: each of 3 backends is left out once in 10^8 runs
	dropTimeout = 300 * time.Millisecond // no answer for so long is a drop
	replyWithin = 5 * time.Second        // an answer must come by then
)

// Row is one row of a packet table: what happens to connections from a host to an address.
type Row struct {
	From     string // name of a host
	To       netip.AddrPort
	Protocol string // "tcp" or "udp"
	Want     Verdict
}

// Verdict is what a client sees. The zero value is a drop: no answer at all.
type Verdict struct {
	Backends []string // names of all servers that answer, sorted
	Source   string   // name of the host that servers take the client for
	Reject   bool     // refused at once
}

// Hosts are the parties of a packet table.
type Hosts struct {
	Namespaces map[string]*Namespace // name of a host -> where it sends from
	Names      map[netip.Addr]string // address -> name of the host, for Verdict.Source
}

// RunTable sends real packets for each row, each in a subtest of its own. The servers must answer as Echo does.
func RunTable(t *testing.T, h Hosts, rows []Row) {
	for _, r := range rows {
		t.Run(fmt.Sprintf("%s to %s %s", r.From, r.Protocol, r.To), func(t *testing.T) {
			got, err := h.Send(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if got.Reject != r.Want.Reject || got.Source != r.Want.Source || !slices.Equal(got.Backends, r.Want.Backends) {
				t.Errorf("got %+v, want %+v", got, r.Want)
			}
		})
	}
}

// Send opens as many connections as it takes to see all backends, and returns what the client saw. Row.Want tells how long
// an answer is waited for.
func (h Hosts) Send(ctx context.Context, r Row) (v Verdict, err error) {
	for range tries {
		answer, err := exchange(ctx, h.Namespaces[r.From], r)
		switch {
		case refused(err):
			v.Reject = true
			if r.Protocol == "udp" {
				return v, nil // the next may be lost: the kernel sends a client one ICMP error a second
			}
			continue
		case errors.Is(err, errNoAnswer):
			return Verdict{}, nil
		case err != nil:
			return v, err
		}
		backend, client, ok := strings.Cut(answer, " ")
		if !ok {
			return v, fmt.Errorf("answer %q is not of an echo server", answer)
		}
		source, err := h.name(client)
		if err != nil {
			return v, err
		}
		if v.Source != "" && v.Source != source {
			return v, fmt.Errorf("seen once as %s, once as %s", v.Source, source)
		}
		v.Source = source
		if !slices.Contains(v.Backends, backend) {
			v.Backends = append(v.Backends, backend)
		}
	}
	slices.Sort(v.Backends)
	return v, nil
}

// refused tells whether the client was told at once. EPERM is what a datagram's sender is told that the output hook of its
// own machine rejects.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPERM)
}

func (h Hosts) name(client string) (string, error) {
	a, err := netip.ParseAddrPort(client)
	if err != nil {
		return "", fmt.Errorf("client as seen by the server: %w", err)
	}
	name, ok := h.Names[a.Addr().Unmap()]
	if !ok {
		return "", fmt.Errorf("the server saw %s, which is no host's address", a)
	}
	return name, nil
}

var errNoAnswer = errors.New("no answer")

// exchange opens one connection and returns the server's answer.
func exchange(ctx context.Context, from *Namespace, r Row) (string, error) {
	patience := replyWithin
	if !r.Want.Reject && len(r.Want.Backends) == 0 {
		patience = dropTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := from.DialContext(ctx, r.Protocol, r.To.String())
	if err != nil {
		return "", orNoAnswer(ctx, err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	if r.Protocol == "udp" {
		if _, err := io.WriteString(c, "hello"); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 256)
	n, err := c.Read(buf)
	return string(buf[:n]), orNoAnswer(ctx, err)
}

func orNoAnswer(ctx context.Context, err error) error {
	if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() || ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return err
}
