package echo_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/nettest"
	"varco.dev/internal/nettest/sctp"
	"varco.dev/lab/internal/echo"
)

// TestMain lets the test binary stand in for varco-lab, as which it is run by the tests of processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "echo" {
		cmd := echo.Command()
		cmd.SetArgs(os.Args[2:])
		if cmd.Execute() != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestProcess runs the command in a pod's namespace, asks it by every protocol without TLS over both families, and
// ends it as a node agent would.
func TestProcess(t *testing.T) {
	nettest.NeedRoot(t)
	w, err := nettest.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	host, err := w.AddHost("host", 11)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "echo", "--shutdown-delay=100ms")
	cmd.Env = append(os.Environ(), "POD_NAME=a-pod", "NODE_NAME=a-node")
	cmd.Stderr = t.Output()
	if err := host.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })

	for _, addr := range nettest.NodeNet.Host(11).Addrs() {
		for _, tc := range []struct {
			network, send string
			port          int
		}{
			{"tcp", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 8080},
			{"tcp", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 8081},
			{"tcp", "x", 7000},
			{"udp", "x", 7000},
			{"sctp", "x", 7001},
		} {
			to := net.JoinHostPort(addr.String(), fmt.Sprint(tc.port))
			got, err := askUntilUp(w.Client, tc.network, to, tc.send)
			if err != nil || !strings.Contains(got, "a-pod") || !strings.Contains(got, "a-node") {
				t.Errorf("%s %s: got %q, %v", tc.network, to, got, err)
			}
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// askUntilUp asks again while the process has not opened its sockets yet.
func askUntilUp(from *nettest.Namespace, network, to, message string) (got string, err error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // between two tries
		if got, err = ask(from, network, to, message); err == nil {
			return got, nil
		}
	}
	return got, err
}

func ask(from *nettest.Namespace, network, to, message string) (string, error) {
	var c net.Conn
	var err error
	ctx, cancel := contextFor(2 * time.Second)
	defer cancel()
	if network == "sctp" {
		c, err = (&sctp.Dialer{Dial: from.DialContext}).DialContext(ctx, to)
	} else {
		c, err = from.DialContext(ctx, network, to)
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte(message)); err != nil {
		return "", err
	}
	b := make([]byte, 10000)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
