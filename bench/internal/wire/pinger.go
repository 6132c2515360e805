package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Exchanges is what came of a run.
type Exchanges struct {
	Took time.Duration
	// Latencies of all exchanges that were whole.
	Latencies []time.Duration
}

// Pinger sends a small request on each of its connections again as soon as it is answered.
type Pinger struct {
	poll  *poll
	conns []pingConn
}

type pingConn struct {
	fd   int
	have int       // bytes of the answer
	sent time.Time // zero if nothing is under way
}

// NewPinger connects, and has each connection answered once. Close ends them.
func NewPinger(to netip.AddrPort, connections int) (*Pinger, error) {
	p := &Pinger{}
	var err error
	if p.poll, err = newPoll(connections); err != nil {
		return nil, err
	}
	for i := range connections {
		if err := p.open(to, i); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

func (p *Pinger) open(to netip.AddrPort, number int) error {
	fd, err := blocking(to)
	if err != nil {
		return err
	}
	p.conns = append(p.conns, pingConn{fd: fd})
	if err := write(fd, request(askPing, 0)); err != nil {
		return err
	}
	if err := readAnswer(fd); err != nil {
		return fmt.Errorf("first answer on connection %d: %w", number, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	return p.poll.add(fd, int32(number), unix.EPOLLIN)
}

// Close ends all connections.
func (p *Pinger) Close() error {
	err := p.poll.close()
	for _, c := range p.conns {
		err = errors.Join(err, unix.Close(c.fd))
	}
	p.conns = nil
	return err
}

// Run exchanges for so long; a run after it goes on where it ended, with one request under way on each connection.
func (p *Pinger) Run(ctx context.Context, duration time.Duration) (out Exchanges, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ping, answer, began := request(askPing, 0), make([]byte, answerBytes), time.Now()
	p.poll.last = began
	for i := range p.conns {
		if c := &p.conns[i]; c.sent.IsZero() {
			if err := c.send(ping); err != nil {
				return out, err
			}
		}
	}
	for time.Since(began) < duration {
		events, err := p.poll.wait()
		if err := errors.Join(err, context.Cause(ctx), p.poll.silent()); err != nil {
			return out, err
		}
		for _, e := range events {
			if err := p.conns[e.Fd].turn(answer, ping, &out); err != nil {
				return out, err
			}
		}
	}
	out.Took = time.Since(began)
	return out, nil
}

func (c *pingConn) send(ping []byte) error {
	c.have, c.sent = 0, time.Now()
	return write(c.fd, ping)
}

// turn reads once: what is left makes the poll tell of it again.
func (c *pingConn) turn(answer, ping []byte, out *Exchanges) error {
	n, err := read(c.fd, answer)
	if errors.Is(err, errWait) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.have += n; c.have < answerBytes {
		return nil
	}
	out.Latencies = append(out.Latencies, time.Since(c.sent))
	return c.send(ping)
}
