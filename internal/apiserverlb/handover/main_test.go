//go:build linux

package handover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"

	"varco.dev/internal/apiserverlb/handover"
)

// childRole names what the test's binary does when it is started as another process.
const childRole = "VARCO_HANDOVER_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case "":
		os.Exit(m.Run())
	case "server":
		exit(serverChild(os.Args[1], os.Args[2]))
	case "dies":
		_, err := handover.Take(context.Background(), os.Args[1])
		exit(errors.Join(err, errors.New("it dies here")))
	case "activated":
		exit(activatedChild())
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serverChild takes the listener at the address over from the process at the path, or opens it, and tells everyone who
// connects its PID. It ends when a successor has come and the last connection has ended. It prints a line when it
// serves, and one when it is succeeded.
func serverChild(path, address string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	addr := netip.MustParseAddrPort(address)
	taken, err := handover.Take(ctx, path)
	var listener *net.TCPListener
	switch {
	case err == nil:
		if listener, _ = handover.Claim(taken.Listeners, "", addr, false); listener == nil {
			return errors.New("the listener did not come")
		}
	case errors.Is(err, handover.ErrNobody):
		if listener, err = handover.Open(ctx, addr); err != nil {
			return err
		}
	default:
		return err
	}
	accepting, err := handover.Dup(listener)
	if err != nil {
		return err
	}
	var sessions sync.WaitGroup
	sessions.Go(func() { acceptAll(accepting, &sessions) })
	if taken != nil {
		if err := taken.Done(ctx); err != nil {
			return err
		}
	}
	err = handover.Serve(ctx, handover.Config{
		Path: path, Log: slog.New(slog.DiscardHandler), Standing: func() { fmt.Println("serves") },
		Listeners: func() []handover.Listener { return []handover.Listener{{Name: "one", Net: listener}} },
		Taken: func(int) {
			_ = accepting.Close()
			_ = listener.Close()
			fmt.Println("succeeded")
			stop()
		},
	})
	sessions.Wait()
	return err
}

// acceptAll answers each connection with the PID, and with what it sends.
func acceptAll(l *net.TCPListener, sessions *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		sessions.Go(func() {
			defer func() { _ = c.Close() }()
			if _, err := io.WriteString(c, strconv.Itoa(os.Getpid())+"\n"); err == nil {
				_, _ = io.Copy(c, c)
			}
		})
	}
}

// activatedChild does what a service does that systemd has started with sockets: descriptors from 3 on. systemd sets
// the PID after the fork, which a test cannot.
func activatedChild() error {
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	given, err := handover.Activated()
	if err != nil {
		return err
	}
	for _, l := range given {
		c, err := l.Net.Accept()
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c, "%s at %v", l.Name, l.Net.Addr()); err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	if again, err := handover.Activated(); err != nil || again != nil {
		return fmt.Errorf("the second call: %v, %w", again, err)
	}
	return nil
}
