package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Fetched is what came of one GET. Both times count from the request.
type Fetched struct {
	// First is when the first byte of the body had come, Whole when the last one had.
	First, Whole time.Duration
	Bytes        int64
}

// Fetch gets a body whole, and forgets it.
func Fetch(ctx context.Context, client *http.Client, url string) (out Fetched, err error) {
	began := time.Now()
	res, err := get(ctx, client, url)
	if err != nil {
		return out, fmt.Errorf("fetch %s: %w", url, err)
	}
	defer res.Body.Close()
	b := make([]byte, piece)
	for {
		n, err := res.Body.Read(b)
		if n > 0 && out.Bytes == 0 {
			out.First = time.Since(began)
		}
		out.Bytes += int64(n)
		if err == io.EOF {
			out.Whole = time.Since(began)
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("fetch %s, after %d bytes: %w", url, out.Bytes, err)
		}
	}
}
