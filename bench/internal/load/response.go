package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// errOdd is what complete returns for an answer that it does not understand, or that is not the expected one.
var errOdd = errors.New("unexpected answer")

// complete returns the length of the HTTP/1.1 response that b begins with, 0 if a part of it is missing, and whether it is
// 200. It does no more than it must, so that the client takes little of the machine from the proxy that it measures. A
// response without a length is an error.
func complete(b []byte) (length int, ok bool, err error) {
	head, _, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return 0, false, nil
	}
	status, lines, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 ")) {
		return 0, false, fmt.Errorf("%w: %.300q", errOdd, b)
	}
	length, err = end(b, len(head)+4, lines)
	return length, bytes.HasPrefix(status, []byte("HTTP/1.1 200")), err
}

// end is the end of the body that begins at start, as the lines of the head tell it; 0 if a part of it is missing.
func end(b []byte, start int, head []byte) (int, error) {
	lines := head
	for len(lines) > 0 {
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.Atoi(string(value))
			if err != nil || n < 0 {
				return 0, fmt.Errorf("%w: %q", errOdd, line)
			}
			return whole(b, start+n), nil
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			n, err := chunks(b[start:])
			if n == 0 || err != nil {
				return 0, err
			}
			return start + n, nil
		}
	}
	return 0, fmt.Errorf("%w: no length: %q", errOdd, head)
}

// whole returns n if b has as much, and else 0.
func whole(b []byte, n int) int {
	if len(b) < n {
		return 0
	}
	return n
}

// chunks returns the length of a whole chunked body without trailers, 0 if a part of it is missing.
func chunks(b []byte) (int, error) {
	for at := 0; ; {
		line, _, ok := bytes.Cut(b[at:], []byte("\r\n"))
		if !ok {
			return 0, nil
		}
		n, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return 0, fmt.Errorf("%w: length of a chunk: %q", errOdd, line)
		}
		at += len(line) + 2 + int(n) + 2
		if at > len(b) {
			return 0, nil
		}
		if n == 0 {
			return at, nil
		}
	}
}
