package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket options of iptables-legacy and the structures that they take (linux/netfilter_ipv4/ip_tables.h and
// netfilter_ipv6/ip6_tables.h, which agree in this).
const (
	legacyGetInfo    = 64      // IPT_SO_GET_INFO
	legacyGetEntries = 65      // IPT_SO_GET_ENTRIES
	legacyInfoSize   = 84      // bytes of struct ipt_getinfo
	legacySizeAt     = 80      // where in it is the size of the table, and in the struct below
	legacyNameSize   = 32      // bytes of a table's name
	legacyHeader     = 40      // bytes of struct ipt_get_entries before the entries
	legacyMax        = 1 << 28 // bytes of a table: a million rules
	legacyAttempts   = 3       // the size of a table may change between the two questions
)

// legacyEntries returns a table as the kernel has it: rules in binary, with the names of chains in plain text. Any socket
// of the family can ask; the raw one that iptables uses would need CAP_NET_RAW.
func legacyEntries(domain, level int, table string) (b []byte, err error) {
	s, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(s)
	for range legacyAttempts {
		if b, err = readLegacy(s, level, table); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return b, err
}

func readLegacy(s, level int, table string) ([]byte, error) {
	info := make([]byte, legacyInfoSize)
	copy(info[:legacyNameSize-1], table)
	if err := getOption(s, level, legacyGetInfo, info); err != nil {
		return nil, err
	}
	size := binary.NativeEndian.Uint32(info[legacySizeAt:])
	if size > legacyMax {
		return nil, fmt.Errorf("table of %d bytes, the limit is %d", size, legacyMax)
	}
	b := make([]byte, legacyHeader+int(size))
	copy(b[:legacyNameSize-1], table)
	binary.NativeEndian.PutUint32(b[legacyNameSize:], size)
	if err := getOption(s, level, legacyGetEntries, b); err != nil {
		return nil, err
	}
	return bytes.Clone(b[legacyHeader:]), nil
}

// getOption fills b, which also says what is asked for, with a socket option.
func getOption(s, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
