package fakeapi

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// piece is how much of a body is written or read at once.
const piece = 256 << 10

// SmallPath asks for a small object, as every GET without one of the other queries does.
const SmallPath = "/api/v1/namespaces/default/configmaps/small"

// UploadPath is where a body may be sent to. The answer is a Status that says how long it was.
const UploadPath = "/api/v1/namespaces/default/configmaps"

// BodyPath asks for a body of so many bytes, of a length that is told before or, if it is chunked, is not.
func BodyPath(bytes int64, chunked bool) string {
	return fmt.Sprintf("/api/v1/namespaces/default/configmaps?bytes=%d&chunked=%t", bytes, chunked)
}

// WatchPath asks for a watch. Each watch has its events at times of its own, or all of them at the same time: together.
func WatchPath(together bool) string {
	return fmt.Sprintf("/api/v1/pods?watch=true&together=%t", together)
}

// Message is what a Status says of a body of so many bytes.
func Message(bytes int64) string { return fmt.Sprintf("%d bytes", bytes) }

// status answers as an API server does: the headers are those that it sends too.
func (s *Server) status(w http.ResponseWriter, bytes int64) {
	h := w.Header()
	h.Set("Audit-Id", "0f4b1c52-7d0c-4a3c-9d5e-3f1f0b8f6a11")
	h.Set("Cache-Control", "no-cache, private")
	h.Set("Content-Type", "application/json")
	h.Set("X-Kubernetes-Pf-Flowschema-Uid", "4a1d7ab0-2f0e-4e0a-8f42-64d1d2c7a001")
	h.Set("X-Kubernetes-Pf-Prioritylevel-Uid", "9b0f2c86-2d55-4f1f-8a3e-5a6c0f7c2002")
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","message":%q,"code":200}`+"\n",
		Message(bytes))
}

func body(w http.ResponseWriter, q url.Values) {
	size, err := strconv.ParseInt(q.Get("bytes"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if q.Get("chunked") != "true" {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	}
	for b := bytes.Repeat([]byte("x"), piece); size > 0; size -= int64(len(b)) {
		b = b[:min(int64(len(b)), size)]
		if _, err := w.Write(b); err != nil {
			return // the client is gone
		}
	}
}

// Parts of an event. The padding makes it as long as a small object.
const (
	eventHead = `{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"pod","annotations":{"at":"`
	eventTail = `"}}}}` + "\n"
	// EventBytes is the length of an event.
	EventBytes = 1024
	// digits of a time in nanoseconds since 1970.
	digits = 19
)

// event is the line of an event that happened at the time.
func event(at time.Time) []byte {
	b := make([]byte, 0, EventBytes)
	b = append(b, eventHead...)
	b = strconv.AppendInt(b, at.UnixNano(), 10)
	b = append(b, `","padding":"`...)
	b = append(b, bytes.Repeat([]byte("x"), EventBytes-len(b)-len(eventTail))...)
	return append(b, eventTail...)
}

// EventTime returns when an event happened, from its line.
func EventTime(line []byte) (time.Time, error) {
	rest, ok := bytes.CutPrefix(line, []byte(eventHead))
	if !ok || len(rest) < digits {
		return time.Time{}, fmt.Errorf("read event: not one of ours: %.200q", line)
	}
	ns, err := strconv.ParseInt(string(rest[:digits]), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read event: %w", err)
	}
	return time.Unix(0, ns), nil
}
