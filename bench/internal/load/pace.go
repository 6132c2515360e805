package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a paced run may go on after its time.
const patience = 30 * time.Second

// timerNumber stands for the timer among the numbers of the connections.
const timerNumber = -1

// Pace sends so many requests a second for so long, each at its time, whatever became of those before it; one that finds
// all connections busy waits for the first that is free. Latencies count from when a request was due, so that a slow
// server cannot hide it by being asked less often. Those of requests that are due before warm has gone by do not count.
// No Run may have gone before. A server that is behind has patience more time for what is left.
func (g *Getter) Pace(ctx context.Context, rate float64, warm, duration time.Duration) (out Gets, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	timer, err := g.tick(time.Duration(float64(time.Second) / rate))
	if err != nil {
		return out, fmt.Errorf("make timer: %w", err)
	}
	defer unix.Close(timer)
	p := pacer{Getter: g, timer: timer, idle: append([]*getConn(nil), g.conns...), began: time.Now(), rate: rate}
	p.total = int(rate * (warm + duration).Seconds())
	p.counted = p.began.Add(warm)
	err = p.run(ctx, warm+duration+patience)
	p.out.Took = duration
	return p.out, err
}

// tick makes a timer that wakes the poll.
func (g *Getter) tick(every time.Duration) (int, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return 0, err
	}
	t := unix.NsecToTimespec(int64(max(every, time.Microsecond)))
	err = errors.Join(
		unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: t, Value: t}, nil),
		unix.EpollCtl(g.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: timerNumber}))
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// pacer is a Getter at work at a pace.
type pacer struct {
	*Getter
	timer          int
	idle           []*getConn // the one that was free first is first
	began, counted time.Time
	rate           float64
	total, sent    int
	answered       int
	out            Gets
}

// due is when request number n is to be sent.
func (p *pacer) due(n int) time.Time {
	return p.began.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
}

func (p *pacer) run(ctx context.Context, limit time.Duration) error {
	w := waiter{poll: p.poll, events: make([]unix.EpollEvent, len(p.conns)+1), last: p.began}
	for p.answered < p.total {
		if err := p.sendDue(time.Now()); err != nil {
			return err
		}
		events, err := w.wait(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := p.event(e.Fd); err != nil {
				return err
			}
		}
		if time.Since(p.began) > limit {
			return fmt.Errorf("%d of %d requests are answered after %s, at %.0f a second", p.answered, p.total, limit, p.rate)
		}
	}
	return nil
}

func (p *pacer) sendDue(now time.Time) error {
	for p.sent < p.total && len(p.idle) > 0 && !p.due(p.sent).After(now) {
		c := p.idle[0]
		p.idle = p.idle[1:]
		if err := c.send(p.request, p.due(p.sent)); err != nil {
			return err
		}
		p.sent++
	}
	return nil
}

func (p *pacer) event(number int32) error {
	if number == timerNumber {
		var expirations [8]byte
		_, _ = unix.Read(p.timer, expirations[:]) // only so that it wakes again: the clock tells what is due
		return nil
	}
	c, out := p.conns[number], &p.out
	if c.sent.Before(p.counted) {
		out = &Gets{}
	}
	whole, err := p.receive(c, out)
	if whole {
		p.answered++
		p.idle = append(p.idle, c)
	}
	return err
}
