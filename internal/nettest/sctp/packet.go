package sctp

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Protocol is the IP protocol number of SCTP.
const Protocol = 132

// Chunk types and the flag that this package itself reads or sends (RFC 9260, section 3.2).
const (
	chunkInit             = 1
	chunkAbort            = 6
	chunkShutdownAck      = 8
	chunkShutdownComplete = 14

	flagTagReflected = 1
)

const (
	headerLen     = 12 // the common header: ports, verification tag, checksum
	chunkLen      = 4  // a chunk's header
	initTagOffset = headerLen + chunkLen
	maxPacket     = 65535
)

var (
	errShort    = errors.New("packet shorter than its headers")
	errChecksum = errors.New("wrong checksum")
)

// packet is a whole SCTP packet, without the IP header, that check has accepted.
type packet []byte

func (p packet) source() uint16      { return binary.BigEndian.Uint16(p) }
func (p packet) destination() uint16 { return binary.BigEndian.Uint16(p[2:]) }

// chunk is the type of the first chunk.
func (p packet) chunk() byte { return p[headerLen] }

// check tells whether b is long enough to be read and came whole.
func check(b []byte) (packet, error) {
	if len(b) < headerLen+chunkLen {
		return nil, errShort
	}
	if binary.LittleEndian.Uint32(b[8:]) != checksum(b) {
		return nil, errChecksum
	}
	return b, nil
}

// checksum is the CRC32c of the packet with its checksum field taken as zero (RFC 9260, appendix A).
func checksum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, table, b[:8])
	c = crc32.Update(c, table, []byte{0, 0, 0, 0})
	return crc32.Update(c, table, b[headerLen:])
}

// withPorts returns a copy of the packet with other ports and the checksum that belongs to them.
func withPorts(b []byte, source, destination uint16) []byte {
	c := append([]byte(nil), b...)
	binary.BigEndian.PutUint16(c, source)
	binary.BigEndian.PutUint16(c[2:], destination)
	binary.LittleEndian.PutUint32(c[8:], checksum(c))
	return c
}

// answerToStray returns what is sent back for a packet that belongs to no association, nil for nothing.
func answerToStray(p packet) []byte {
	kind, flags, tag := byte(chunkAbort), byte(flagTagReflected), binary.BigEndian.Uint32(p[4:])
	switch p.chunk() {
	case chunkAbort, chunkShutdownComplete:
		return nil
	case chunkShutdownAck:
		kind = chunkShutdownComplete
	case chunkInit:
		if len(p) < initTagOffset+4 {
			return nil
		}
		flags, tag = 0, binary.BigEndian.Uint32(p[initTagOffset:])
	}
	b := make([]byte, headerLen+chunkLen)
	binary.BigEndian.PutUint32(b[4:], tag)
	b[headerLen], b[headerLen+1], b[headerLen+3] = kind, flags, chunkLen
	return withPorts(b, p.destination(), p.source())
}
