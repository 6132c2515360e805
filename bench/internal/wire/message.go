package wire

import "encoding/binary"

// Lengths of messages, about those of a small request for an object and its answer.
const (
	requestBytes = 128
	answerBytes  = 256
)

// What a request asks for.
const (
	askPing = 'p' // an answer; the connection stays open
	askBulk = 'b' // bytes, until the client ends the connection
)

// record is how the first message of a TLS client begins: a handshake record. Requests look like one, because proxies treat
// the first bytes of a connection so. mark follows, where a TLS client would say which message it is.
var (
	record = [3]byte{0x16, 3, 1}
	mark   = [4]byte{'w', 'i', 'r', 'e'}
)

// Places in a request.
const (
	markAt = 5
	askAt  = markAt + len(mark)
	bulkAt = askAt + 1
)

// request is a whole message; bytes is how many a bulk request wants.
func request(ask byte, bytes int64) []byte {
	b := make([]byte, requestBytes)
	copy(b, record[:])
	binary.BigEndian.PutUint16(b[len(record):], requestBytes-markAt)
	copy(b[markAt:], mark[:])
	b[askAt] = ask
	binary.BigEndian.PutUint64(b[bulkAt:], uint64(bytes))
	return b
}

// marked says whether the beginning of a connection is a request; if not, it is TLS.
func marked(b []byte) bool { return len(b) > bulkAt+8 && [4]byte(b[markAt:]) == mark }

// wanted is how many bytes a bulk request wants.
func wanted(b []byte) int64 { return int64(binary.BigEndian.Uint64(b[bulkAt:])) }
