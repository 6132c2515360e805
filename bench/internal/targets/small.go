package targets

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"sync/atomic"
)

// body is what a small answer says: as long as a Status.
const body = `{"kind":"Answer","message":"a small answer of a target that has nothing else to do","status":"Success"}` + "\n"

func (s *Server) accept(l net.Listener, count *atomic.Int64) {
	whole := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go answer(c, whole, count)
	}
}

// answer gives the whole answer to requests without a body. It does no more than it must, so that the machine is the proxy's.
func answer(c net.Conn, whole []byte, count *atomic.Int64) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return // the client is gone
		}
		if len(bytes.TrimSpace(line)) > 0 {
			continue
		}
		count.Add(1)
		if _, err := c.Write(whole); err != nil {
			return
		}
	}
}
