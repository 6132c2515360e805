package cluster

import (
	"bytes"
	"io"
	"net/http"
)

// heldAnswer bounds how much of a 401 is read before the request is sent again; a Status is 200 bytes or so.
const heldAnswer = 64 << 10

// replayer sends the requests of one lane. If the API server refuses the credential, and there is another one by now, it
// sends the request once more; the client then sees that answer only. kubectl proxy hands on the first 401: client-go's
// exec plugin renews its credentials then, for the next request.
type replayer struct {
	cluster *Cluster
	lane    lane
}

// RoundTrip implements http.RoundTripper. It may be called at the same time.
func (p *replayer) RoundTrip(r *http.Request) (*http.Response, error) {
	own := len(r.Header["Authorization"]) > 0 // the client's: there is no other
	g := p.cluster.current(own)
	if own || r.Body == nil || r.Body == http.NoBody {
		resp, err := g.auth[p.lane].RoundTrip(r)
		if own || err != nil || resp.StatusCode != http.StatusUnauthorized {
			return resp, err
		}
		return p.again(r, resp, g, nil)
	}
	b := newBody(r.Body, r.ContentLength)
	resp, err := g.auth[p.lane].RoundTrip(b.request(r, r.Header))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		b.release()
		return resp, err
	}
	return p.again(r, resp, g, b)
}

// again answers with what the API server says to a new credential, or with the first answer if there is none or if the
// body is gone.
func (p *replayer) again(r *http.Request, first *http.Response, used *generation, b *body) (*http.Response, error) {
	if b != nil {
		defer b.release()
	}
	// net/http's transports say which request they were given, which is the one that has passed all of client-go's wrappers.
	if first.Request == nil || b != nil && !b.kept() {
		return first, nil
	}
	next := p.cluster.renew(r.Context(), used, first.Request.Header.Get("Authorization"))
	if next == nil {
		return first, nil
	}
	hold(first)
	if b != nil && !b.free(r.Context()) {
		return first, nil
	}
	first.Body.Close()
	// client-go's exec plugin writes into the header map that it is given.
	header := r.Header.Clone()
	header.Del("Authorization")
	if b != nil {
		return next.auth[p.lane].RoundTrip(b.request(r, header))
	}
	second := r.WithContext(r.Context())
	second.Header = header
	return next.auth[p.lane].RoundTrip(second)
}

// hold reads an answer, so that its connection can serve others. The answer stays as it is.
func hold(resp *http.Response) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, heldAnswer+1))
	read := bytes.NewReader(data)
	switch {
	case err != nil:
		resp.Body = &answer{io.MultiReader(read, failure{err}), resp.Body}
	case len(data) > heldAnswer:
		resp.Body = &answer{io.MultiReader(read, resp.Body), resp.Body}
	default:
		resp.Body.Close()
		resp.Body = io.NopCloser(read)
	}
}

type answer struct {
	io.Reader
	io.Closer
}

// failure is a reader that only fails.
type failure struct{ err error }

// Read implements io.Reader.
func (f failure) Read([]byte) (int, error) { return 0, f.err }
