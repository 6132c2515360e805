package handover

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// What Notify may say (sd_notify(3)).
const (
	Ready    = daemon.SdNotifyReady
	Stopping = daemon.SdNotifyStopping
	Watchdog = daemon.SdNotifyWatchdog // the process does its work
)

// Reloading says that the configuration is read again; Ready ends it. It must be sent at once, as it has the time.
func Reloading() string {
	if now := daemon.SdNotifyMonotonicUsec(); now != "" {
		return daemon.SdNotifyReloading + "\n" + strings.TrimSpace(now)
	}
	return daemon.SdNotifyReloading
}

// Status is a line for people who read systemctl status.
func Status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// MainPID says that another process is the service's main one from now on.
func MainPID(pid int) string { return "MAINPID=" + strconv.Itoa(pid) }

// Notify tells systemd (NOTIFY_SOCKET) all states at once. Where systemd did not start the process it does nothing.
func Notify(states ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// WatchdogInterval is how often systemd is to be told Watchdog: twice in the time after which it ends the process
// (WatchdogSec=). 0: never.
func WatchdogInterval() (time.Duration, error) {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("read the interval of systemd's watchdog: %w", err)
	}
	return d / 2, nil
}

// Activated returns the listeners that systemd opened for this process (LISTEN_FDS), named by FileDescriptorName=, else
// by the socket's unit; none where systemd opened none. A second call returns none. If one is no TCP listener, the error
// names it, and all are closed.
func Activated() ([]Listener, error) {
	var out []Listener
	var errs error
	for _, f := range activation.Files(true) {
		name := f.Name()
		l, err := adopt(f)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("socket %s of systemd: %w", name, err))
			continue
		}
		out = append(out, Listener{Name: name, Net: l})
	}
	if errs == nil {
		return out, nil
	}
	for _, l := range out {
		_ = l.Net.Close()
	}
	return nil, errs
}
