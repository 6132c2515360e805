package rewrite

import (
	"encoding/binary"
	"hash"
	"hash/adler32"
	"hash/crc32"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// What encoders take as long as a page is open, and what they make of one of 1.9 MB that is flushed every 32 KiB. Much more
// memory buys little:
//
//	deflate without state    0 KiB  612 kB    level 1: 808 KiB, 547 kB
//	brotli                 698 KiB  483 kB    quality 0: 338 KiB, 606 kB; quality 4: 1194 KiB, 455 kB
//	zstd                   732 KiB  498 kB    window of 1 MiB: 1628 KiB, 490 kB
const (
	brotliQuality = 2
	brotliWindow  = 16 // its logarithm
	zstdWindow    = 128 << 10
)

// encoder returns an encoder for what the feed decodes. It is asked for when the first piece has come, which tells the kinds of
// deflate apart.
func (f *codedFeed) encoder(w io.Writer) encoder {
	switch f.coding {
	case brotlied:
		return brotli.NewWriterOptions(w, brotli.WriterOptions{Quality: brotliQuality, LGWin: brotliWindow})
	case zstandard:
		// The only errors are those of options that are none.
		z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
		return z
	}
	return newDeflater(w, f.coding)
}

// deflater writes deflate as gzip, zlib or bare. It holds nothing between two writes, each of which goes out at once: an open
// page that is silent costs no memory, where other encoders keep tables of hundreds of KiB.
type deflater struct {
	w     io.Writer
	c     coding
	begun bool
	size  uint32
	sum   hash.Hash32
}

func newDeflater(w io.Writer, c coding) *deflater {
	d := &deflater{w: w, c: c}
	if c == gzipped {
		d.sum = crc32.NewIEEE()
	} else {
		d.sum = adler32.New()
	}
	return d
}

// begin writes the header: RFC 1952, 2.3, without name and time, or RFC 1950, 2.2.
func (d *deflater) begin() (err error) {
	if d.begun {
		return nil
	}
	d.begun = true
	switch d.c {
	case gzipped:
		_, err = d.w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	case deflated:
		_, err = d.w.Write([]byte{0x78, 0x01})
	}
	return err
}

// Write implements io.Writer.
func (d *deflater) Write(p []byte) (int, error) {
	if err := d.begin(); err != nil {
		return 0, err
	}
	d.size += uint32(len(p))
	d.sum.Write(p)
	return len(p), flate.StatelessDeflate(d.w, p, false, nil)
}

// Flush implements encoder.
func (d *deflater) Flush() error { return nil }

// Close ends the page with its sum.
func (d *deflater) Close() error {
	if err := d.begin(); err != nil {
		return err
	}
	if err := flate.StatelessDeflate(d.w, nil, true, nil); err != nil {
		return err
	}
	var end []byte
	switch d.c {
	case gzipped:
		end = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, d.sum.Sum32()), d.size)
	case deflated:
		end = binary.BigEndian.AppendUint32(nil, d.sum.Sum32())
	}
	_, err := d.w.Write(end)
	return err
}
