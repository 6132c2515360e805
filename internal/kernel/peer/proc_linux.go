package peer

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// readTable finds a socket in /proc/net/tcp and tcp6. IPv4 connections of sockets for both families are in tcp6.
func readTable(local, remote netip.AddrPort) (socket, error) {
	for _, name := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		f, err := os.Open(name)
		if os.IsNotExist(err) && strings.HasSuffix(name, "6") {
			continue // no IPv6 here
		}
		if err != nil {
			return socket{}, fmt.Errorf("reading the kernel's table of sockets: %w", err)
		}
		s, err := findSocket(f, local, remote)
		f.Close()
		if err != nil {
			return socket{}, fmt.Errorf("reading %s: %w", name, err)
		}
		if s.state != 0 {
			return s, nil
		}
	}
	return socket{}, ErrGone
}

// findSocket returns the socket of these addresses, and none if there is none.
func findSocket(table io.Reader, local, remote netip.AddrPort) (socket, error) {
	lines := bufio.NewScanner(table)
	lines.Scan() // the header
	for lines.Scan() {
		s, err := parseLine(lines.Text())
		if err != nil {
			return socket{}, err
		}
		if s.local == local && s.remote == remote {
			return s, nil
		}
	}
	return socket{}, lines.Err()
}

// parseLine reads "0: 0100007F:1F41 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1000  0 12345 …", which is
// number, local, remote, state, queues, timer, retransmissions, uid, timeout, inode (proc_net_tcp in the kernel's
// documentation).
func parseLine(line string) (socket, error) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return socket{}, fmt.Errorf("line %q has %d fields, want 10", line, len(fields))
	}
	local, err := parseAddr(fields[1])
	if err != nil {
		return socket{}, err
	}
	remote, err := parseAddr(fields[2])
	if err != nil {
		return socket{}, err
	}
	state, err := strconv.ParseUint(fields[3], 16, 8)
	if err != nil {
		return socket{}, fmt.Errorf("reading a state: %w", err)
	}
	uid, err := strconv.ParseUint(fields[7], 10, 32)
	if err != nil {
		return socket{}, fmt.Errorf("reading a user: %w", err)
	}
	inode, err := strconv.ParseUint(fields[9], 10, 64)
	if err != nil {
		return socket{}, fmt.Errorf("reading an inode: %w", err)
	}
	return socket{local: local, remote: remote, state: uint8(state), uid: uint32(uid), inode: uint32(inode)}, nil
}

// parseAddr reads an address, which is in words of this machine's order, and a port.
func parseAddr(text string) (netip.AddrPort, error) {
	words, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(words)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", text)
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the port of %q: %w", text, err)
	}
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes
	return plain(netip.AddrPortFrom(a, uint16(p))), nil
}
