//go:build linux

package peer

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	ours   = netip.MustParseAddrPort("127.0.0.1:8001")
	theirs = netip.MustParseAddrPort("127.0.0.1:54000")
)

func TestOwner(t *testing.T) {
	tests := []struct {
		name string
		s    socket
		gone bool
	}{
		{"established", socket{theirs, ours, established, 7, 1}, false},
		{"half closed", socket{theirs, ours, finWait2, 7, 1}, false},
		{"we closed our half", socket{theirs, ours, closeWait, 7, 1}, false},
		{"without a process", socket{theirs, ours, finWait2, 0, 0}, true},
		{"begins to connect", socket{theirs, ours, 2, 7, 1}, true},
		{"TIME_WAIT", socket{theirs, ours, 6, 0, 1}, true},
		{"listens", socket{theirs, netip.MustParseAddrPort("0.0.0.0:0"), 10, 7, 1}, true},
		{"another connection", socket{theirs, netip.MustParseAddrPort("127.0.0.1:8002"), established, 7, 1}, true},
		{"from elsewhere", socket{netip.MustParseAddrPort("127.0.0.2:54000"), ours, established, 7, 1}, true},
	}
	for _, tt := range tests {
		uid, err := tt.s.owner(theirs, ours)
		if gone := errors.Is(err, ErrGone); gone != tt.gone || !gone && uid != 7 {
			t.Errorf("%s: user %d, error %v", tt.name, uid, err)
		}
	}
}

// TestTableSaysTheSame compares the two ways to ask.
func TestTableSaysTheSame(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		local := plain(client.LocalAddr().(*net.TCPAddr).AddrPort())
		remote := plain(client.RemoteAddr().(*net.TCPAddr).AddrPort())
		asked, err := diagnose(local, remote)
		if err != nil {
			t.Fatal(err)
		}
		read, err := readTable(local, remote)
		if err != nil {
			t.Fatal(err)
		}
		want := socket{local: local, remote: remote, state: established, uid: uint32(os.Geteuid())}
		compare := []cmp.Option{cmp.AllowUnexported(socket{}), cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.IgnoreFields(socket{}, "inode")}
		if diff := cmp.Diff(want, asked, compare...); diff != "" {
			t.Errorf("%s: sock_diag (-want +got):\n%s", address, diff)
		}
		if diff := cmp.Diff(want, read, compare...); diff != "" {
			t.Errorf("%s: /proc (-want +got):\n%s", address, diff)
		}
		if asked.inode == 0 || asked.inode != read.inode {
			t.Errorf("%s: inodes %d and %d", address, asked.inode, read.inode)
		}
	}
	if _, err := readTable(netip.MustParseAddrPort("127.0.0.1:1"), ours); !errors.Is(err, ErrGone) {
		t.Errorf("no such socket: error %v, want %v", err, ErrGone)
	}
}

func TestParseLineRefuses(t *testing.T) {
	const good = "  0: 0100007F:1F41 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1000  0 12345 1"
	if _, err := parseLine(good); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"0100007F:1F41", "0100007:1F41"}, {"0100007F:1F41", "010000:1F41"}, {"0100007F:D2F0", "0100007F"}, {"1F41", "11F41"},
		{" 01 ", " 1FF "}, {" 1000 ", " -1 "}, {" 12345 1", " x"}, {" 0 12345 1", ""},
	} {
		if s, err := parseLine(strings.Replace(good, change[0], change[1], 1)); err == nil {
			t.Errorf("%v: read %+v, want an error", change, s)
		}
	}
}

func FuzzDiagAnswer(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, answerSize-1))
	f.Add(append([]byte{2, 1}, make([]byte, answerSize)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := diagAnswer(b); (err == nil) != (len(b) >= answerSize) {
			t.Errorf("%d bytes: error %v", len(b), err)
		}
	})
}
