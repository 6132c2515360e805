package cluster_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/kubectlproxy/cluster"
)

// TestKeepalive reads the kernel's timer of an upgraded connection.
func TestKeepalive(t *testing.T) {
	tests := []struct {
		name     string
		set      cluster.KeepAlive
		from, to time.Duration // both 0: no timer
	}{
		{"unset", cluster.KeepAlive{}, 10 * time.Second, 15 * time.Second},
		{"0", cluster.KeepAlive{Set: true}, 0, 0},
		{"a minute", cluster.KeepAlive{Set: true, Period: time.Minute}, 50 * time.Second, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(t)
			s := newStage(t, a, &clientcmdapi.AuthInfo{}, func(s *stage) { s.config.Keepalive = tt.set })
			echo(t, s.get(""))("hello")
			r, _ := a.last()
			got := timer(t, r.RemoteAddr, a.Listener.Addr().String())
			if got < tt.from || got > tt.to {
				t.Errorf("the next probe is in %v, want %v to %v", got, tt.from, tt.to)
			}
		})
	}
}

// timer returns when the kernel's keepalive timer of a connection expires; 0: there is none.
func timer(t *testing.T, local, remote string) time.Duration {
	const retransmission, keepalive = "01", "02" // Documentation/networking/proc_net_tcp.rst
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		data, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		kind, when := row(string(data), end4(t, local), end4(t, remote))
		switch kind {
		case keepalive:
			jiffies, err := strconv.ParseInt(when, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return time.Duration(jiffies) * 10 * time.Millisecond // USER_HZ is 100
		case "00":
			return 0
		case retransmission: // the last bytes are not acknowledged yet
		case "":
			t.Fatalf("the kernel does not know the connection from %s", local)
		}
		time.Sleep(10 * time.Millisecond) // the kernel tells nobody when a timer changes
	}
	t.Fatalf("the connection from %s has another timer, or bytes stay unacknowledged", local)
	return 0
}

// end4 returns an address of 127.0.0.1 as the kernel's table has it.
func end4(t *testing.T, addr string) string {
	host, port, _ := strings.Cut(addr, ":")
	number, err := strconv.Atoi(port)
	if err != nil || host != "127.0.0.1" {
		t.Fatalf("the address is %s", addr)
	}
	return fmt.Sprintf("0100007F:%04X", number)
}

// row finds the timer of a socket: its kind and when it expires.
func row(table, local, remote string) (kind, when string) {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[1] == local && fields[2] == remote {
			kind, when, _ = strings.Cut(fields[5], ":")
			return kind, when
		}
	}
	return "", ""
}
