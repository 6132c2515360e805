package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Sizes in bytes.
const (
	// Max is the length of the longest header. Parse never asks for more bytes than this.
	Max = fixed + maxPayload

	// maxLine is the length of the longest line of version 1, its end included (section 2.1).
	maxLine = 107
	// maxPayload is the most that is taken after the fixed part of a header of version 2: addresses and extensions.
	// The largest extension in use, a client certificate, has 1 to 2 KiB; the field could announce 64 KiB.
	maxPayload = 4096

	fixed    = 16 // signature, version and command, family and protocol, length
	sizeIPv4 = 12 // two addresses and two ports
	sizeIPv6 = 36
	sizeUnix = 216 // two paths
)

// ErrIncomplete says that all bytes so far belong to a header, and that more are needed.
var ErrIncomplete = errors.New("the PROXY protocol header is not whole yet")

// errAbsent says that the bytes do not begin as a header does.
var errAbsent = errors.New("there is no PROXY protocol header")

// Header is what a proxy says of a connection.
type Header struct {
	// Local says that the header names no client, and that the addresses of the connection itself count: the proxy
	// speaks for itself, as in a health check, or does not know the client, or knows it by no TCP address.
	Local bool
	// Source is the client and Destination what it connected to; zero if Local. IPv4 addresses are never in IPv6 form.
	Source, Destination netip.AddrPort
}

// Parse reads the header at the beginning of b and returns its length. While b holds only a part of it, the error is
// ErrIncomplete, which it never is for Max bytes or more; with every other error no further bytes can make a header of
// b. Nothing in b after the header is looked at, and b is not kept.
func Parse(b []byte) (Header, int, error) {
	switch {
	case len(b) == 0:
		return Header{}, 0, ErrIncomplete
	case begins(b, proxyproto.SIGV2):
		return parseV2(b)
	case begins(b, proxyproto.SIGV1):
		return parseV1(b)
	}
	return Header{}, 0, errAbsent
}

// begins says whether b begins with the signature, or is the beginning of it.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

// parseV1 reads a line of text (section 2.1).
func parseV1(b []byte) (Header, int, error) {
	const prefix = "PROXY "
	if !begins(b, []byte(prefix)) {
		return Header{}, 0, errAbsent
	}
	n := bytes.IndexByte(b[:min(len(b), maxLine)], '\n') + 1
	switch {
	case n == 0 && len(b) >= maxLine:
		return Header{}, 0, fmt.Errorf("read the PROXY protocol header: no end of line within %d bytes", maxLine)
	case n == 0:
		return Header{}, 0, ErrIncomplete
	}
	h, err := read(b[:n])
	return h, n, err
}

// parseV2 reads a binary header (section 2.2). What can be refused early is: a sender of something else must not be
// waited for.
func parseV2(b []byte) (Header, int, error) {
	if len(b) > 12 && b[12]>>4 != 2 {
		return Header{}, 0, fmt.Errorf("read the PROXY protocol header: version %d is not 1 or 2", b[12]>>4)
	}
	if len(b) > 12 && b[12]&0xf > 1 {
		return Header{}, 0, fmt.Errorf("read the PROXY protocol header: command %d is neither LOCAL nor PROXY", b[12]&0xf)
	}
	least := 0
	if len(b) > 13 && !isLocal(b) {
		var known bool
		if least, known = addressSize(b[13]); !known {
			return Header{}, 0, fmt.Errorf("read the PROXY protocol header: %#02x is no family and protocol", b[13])
		}
	}
	if len(b) < fixed {
		return Header{}, 0, ErrIncomplete
	}
	size := int(binary.BigEndian.Uint16(b[14:]))
	if size < least || size > maxPayload {
		return Header{}, 0, fmt.Errorf("read the PROXY protocol header: a length of %d is not within %d to %d", size, least, maxPayload)
	}
	if len(b) < fixed+size {
		return Header{}, 0, ErrIncomplete
	}
	h, err := readV2(b[:fixed+size], fixed+least)
	return h, fixed + size, err
}

// isLocal says whether the command of a header of version 2 is LOCAL. Then nothing else of it counts but its length.
func isLocal(b []byte) bool { return proxyproto.ProtocolVersionAndCommand(b[12]).IsLocal() }

// addressSize returns how many bytes the addresses of a family and protocol have. known is false if there is no such
// family and protocol: the specification wants these refused.
func addressSize(family byte) (size int, known bool) {
	switch proxyproto.AddressFamilyAndProtocol(family) {
	case proxyproto.UNSPEC:
		return 0, true
	case proxyproto.TCPv4, proxyproto.UDPv4:
		return sizeIPv4, true
	case proxyproto.TCPv6, proxyproto.UDPv6:
		return sizeIPv6, true
	case proxyproto.UnixStream, proxyproto.UnixDatagram:
		return sizeUnix, true
	}
	return 0, false
}

// readV2 reads a whole header, whose extensions begin at the offset. A client that is not one of TCP is taken for one
// of an unspecified family, as the specification wants, and that is accepted, as HAProxy does.
func readV2(b []byte, offset int) (Header, error) {
	if isLocal(b) {
		return Header{Local: true}, nil
	}
	if err := checkExtensions(b, offset); err != nil {
		return Header{}, err
	}
	switch proxyproto.AddressFamilyAndProtocol(b[13]) {
	case proxyproto.TCPv4, proxyproto.TCPv6:
		return read(b)
	}
	return Header{Local: true}, nil
}

// read has the library read a header that is whole.
func read(b []byte) (Header, error) {
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), len(b)))
	if err != nil {
		return Header{}, fmt.Errorf("read the PROXY protocol header: %w", err)
	}
	out := Header{Local: h.Command.IsLocal()}
	if out.Local {
		return out, nil
	}
	source, destination, ok := h.TCPAddrs()
	if !ok {
		return Header{}, errors.New("read the PROXY protocol header: it has no TCP addresses")
	}
	out.Source, out.Destination = plain(source.AddrPort()), plain(destination.AddrPort())
	return out, nil
}

// plain takes an IPv4 address out of its IPv6 form.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
