package relay

import "io"

const (
	// quiet is the buffer of a direction in which little is said. Most connections that are open for long are such, and what is
	// said on them fits: io.Copy's 32 KiB for each direction were two thirds of what an idle WebSocket costs.
	quiet = 512
	// busy is the largest buffer, which reads that come back filled lead to: io.Copy's.
	busy = 32 << 10
	// growth is how much larger each buffer is than the one before it.
	growth = 4
)

// move is io.Copy with a buffer that is as large as is of use. Sides that move bytes by themselves, as TCP connections do (splice),
// go on to do so.
func move(dst io.Writer, src io.Reader) error {
	_, takes := dst.(io.ReaderFrom)
	_, gives := src.(io.WriterTo)
	if takes || gives {
		_, err := io.Copy(dst, src)
		return err
	}
	small := make([]byte, quiet)
	buf := small
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n < quiet:
			buf = small // whatever comes next may take long
		case n == len(buf) && n < busy:
			buf = make([]byte, min(growth*n, busy))
		}
	}
}
