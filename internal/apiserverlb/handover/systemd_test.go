//go:build linux

package handover_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"varco.dev/internal/apiserverlb/handover"
)

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := handover.Notify(handover.Ready); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	for want, states := range map[string][]string{
		"READY=1\nSTATUS=serves 3 backends": {handover.Ready, handover.Status("serves\n3 backends")},
		"STOPPING=1":                        {handover.Stopping},
		"WATCHDOG=1":                        {handover.Watchdog},
		"MAINPID=7":                         {handover.MainPID(7)},
	} {
		if err := handover.Notify(states...); err != nil {
			t.Fatal(err)
		}
		if got := datagram(t, manager); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if err := handover.Notify(handover.Reloading()); err != nil {
		t.Fatal(err)
	}
	var usec int64
	got := datagram(t, manager)
	if n, err := fmt.Sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); n != 1 || usec <= 0 {
		t.Errorf("got %q, %v", got, err)
	}
	_ = manager.Close()
	if err := handover.Notify(handover.Ready); err == nil {
		t.Error("got no error of a manager that is gone")
	}
}

func datagram(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(b[:n]))
}

func TestWatchdogInterval(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		err       bool
	}{
		{"", "", 0, false},
		{"3000000", "", 1500 * time.Millisecond, false},
		{"3000000", fmt.Sprint(os.Getpid()), 1500 * time.Millisecond, false},
		{"3000000", "1", 0, false},
		{"soon", "", 0, true},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got, err := handover.WatchdogInterval(); got != c.want || (err != nil) != c.err {
			t.Errorf("%+v: got %v, %v", c, got, err)
		}
	}
}
