package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"varco.dev/internal/nettest/sctp"
)

// socketSession asks by TCP, UDP or SCTP: it sends a line and wants it back.
type socketSession struct {
	dial   func(ctx context.Context) (net.Conn, error)
	stream bool // greets first, and keeps no message apart from the next
	conn   net.Conn
	in     *bufio.Reader
	line   string // who answered, as it said itself
	asked  int
}

func socketOpener(cfg Config, network string, to netip.AddrPort) func() session {
	dial := func(ctx context.Context) (net.Conn, error) { return cfg.Dial(ctx, network, to.String()) }
	if network == "sctp" {
		d := &sctp.Dialer{Dial: cfg.Dial}
		dial = func(ctx context.Context) (net.Conn, error) {
			c, err := d.DialContext(ctx, to.String())
			if err != nil {
				return nil, err // not c: a nil *Conn in an interface is not nil
			}
			return c, nil
		}
	}
	return func() session { return &socketSession{dial: dial, stream: network == "tcp"} }
}

func (s *socketSession) ask(ctx context.Context) (answer, error) {
	if err := s.connect(ctx); err != nil {
		return answer{}, err
	}
	// A request that is broken off from outside must not wait for its timeout.
	stop := context.AfterFunc(ctx, func() { s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if s.stream && s.asked == 0 {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return answer{}, fmt.Errorf("read greeting: %w", err)
		}
		s.line = line
	}
	s.asked++
	sent := fmt.Sprintf("request %d\n", s.asked)
	if _, err := s.conn.Write([]byte(sent)); err != nil {
		return answer{}, err
	}
	if !s.stream {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return answer{}, err
		}
		s.line = line
	}
	got, err := s.in.ReadString('\n')
	if err != nil {
		return answer{}, err
	}
	if got != sent {
		return answer{}, fmt.Errorf("sent %q, and %q came back", sent, got)
	}
	who := answerOf(s.line)
	if who.pod == "" {
		return answer{}, errors.New("the answer names no pod: not the test server")
	}
	return who, nil
}

func (s *socketSession) connect(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	// A reader that is as large as a datagram takes it whole.
	s.conn, s.in = c, bufio.NewReaderSize(c, 1<<16)
	return nil
}

func (s *socketSession) close() {
	if s.conn != nil {
		s.conn.Close()
	}
}

// answerOf reads a line "pod=NAME node=… client=ADDRESS:PORT".
func answerOf(line string) (a answer) {
	for word := range strings.FieldsSeq(line) {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "pod":
			a.pod = value
		case "client":
			a.client = value
		}
	}
	return a
}
