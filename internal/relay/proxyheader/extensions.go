package proxyheader

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/pires/go-proxyproto"
)

// extensionHead is the size of the type and length before the value of an extension (section 2.2.7).
const extensionHead = 3

// checkExtensions looks at the extensions of a whole header of version 2, which begin at the offset: they must fill it
// exactly, and if one of them is a checksum, it must be right (section 2.2.3). All others are skipped.
func checkExtensions(b []byte, offset int) error {
	sum := 0 // offset of the checksum
	for i := offset; i < len(b); {
		if len(b)-i < extensionHead {
			return errors.New("read the PROXY protocol header: its last extension is cut off")
		}
		size := int(binary.BigEndian.Uint16(b[i+1:]))
		value := i + extensionHead
		if size > len(b)-value {
			return errors.New("read the PROXY protocol header: an extension is longer than the header")
		}
		if proxyproto.PP2Type(b[i]) == proxyproto.PP2_TYPE_CRC32C {
			if size != crc32.Size || sum != 0 {
				return errors.New("read the PROXY protocol header: it has a checksum of another size than 4, or two")
			}
			sum = value
		}
		i = value + size
	}
	if sum != 0 && checksum(b, sum) != binary.BigEndian.Uint32(b[sum:]) {
		return errors.New("read the PROXY protocol header: its checksum is wrong")
	}
	return nil
}

// checksum is the CRC-32C over the header with zeros in the place of the checksum.
func checksum(b []byte, at int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, b[:at])
	sum = crc32.Update(sum, table, make([]byte, crc32.Size))
	return crc32.Update(sum, table, b[at+crc32.Size:])
}
