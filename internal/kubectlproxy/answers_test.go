package kubectlproxy_test

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// redirects answers with a redirect to where the query says.
func redirects(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Location", r.URL.Query().Get("to"))
	w.WriteHeader(http.StatusFound)
}

// zips answers gzipped if it may, and says so.
func zips(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		io.WriteString(w, "plain")
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	io.WriteString(z, "was zipped")
	z.Close()
}

// watches answers with a line for each event.
func watches(events <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		for {
			http.NewResponseController(w).Flush()
			select {
			case event := <-events:
				fmt.Fprintln(w, event)
			case <-r.Context().Done():
				return
			}
		}
	}
}

// upgrade writes a request for another protocol.
func upgrade(target, protocol string, headers ...string) string {
	return get(target, append([]string{
		"Connection: Upgrade", "Upgrade: " + protocol,
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, headers...)...)
}

// echoes speaks every protocol: it sends each line back.
func echoes(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	for rw.Flush() == nil {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		rw.WriteString("echo " + line)
	}
}

// line reads one line of a stream, without its end; the error stands in the place of a line.
func line(from io.Reader) string {
	in, ok := from.(*bufio.Reader)
	if !ok {
		in = bufio.NewReader(from)
	}
	text, err := in.ReadString('\n')
	if err != nil {
		return fmt.Sprintf("%s(%v)", text, err)
	}
	return strings.TrimSuffix(text, "\n")
}

// echo says a word on an upgraded connection and returns what comes back.
func (w *wire) echo(word string) string {
	if _, err := io.WriteString(w, word+"\n"); err != nil {
		return err.Error()
	}
	return line(w.in)
}
