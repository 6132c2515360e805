package origin

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"

	"varco.dev/internal/httpproxy"
)

func TestProtocolOf(t *testing.T) {
	tests := []struct {
		app, name string
		number    int
		want      protocol
	}{
		{"", "", 80, plainHTTP}, {"", "", 443, overTLS}, {"", "", 8443, overTLS}, {"", "http", 443, plainHTTP},
		{"https", "http", 80, overTLS}, {"kubernetes.io/h2c", "", 443, plainH2}, {"kubernetes.io/ws", "", 80, plainHTTP},
		{"kubernetes.io/wss", "", 80, overTLS}, {"HTTPS", "", 80, overTLS}, {"", "https-metrics", 80, overTLS},
		{"", "grpc", 80, plainH2}, {"", "grpc-web", 80, plainHTTP}, {"grpc-web", "grpc", 80, plainHTTP}, {"", "http2", 80, plainH2},
		{"mongo", "web", 80, plainHTTP}, {"", "httpsx", 80, plainHTTP}, {"", "grpcs", 80, overTLS}, {"tcp", "https", 80, overTLS},
	}
	for _, test := range tests {
		if got := protocolOf(test.app, test.name, test.number); got != test.want {
			t.Errorf("protocolOf(%q, %q, %d) = %v, want %v", test.app, test.name, test.number, got, test.want)
		}
	}
}

func TestReplacer(t *testing.T) {
	const old, text = `="/api/p/`, `a="/api/p/x" b="/api/p/" ="/api/q/ ="/api/="/api/p/y ="/api/p`
	want := strings.ReplaceAll(text, old, `="/`)
	for name, src := range map[string]io.Reader{
		"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text)),
		"halves": iotest.HalfReader(strings.NewReader(text)), "end with data": iotest.DataErrReader(strings.NewReader(text)),
	} {
		r := &replacer{src: src, close: io.NopCloser(nil), old: []byte(old), new: []byte(`="/`)}
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	broken := &replacer{src: iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("ab"))), old: []byte(old)}
	if got, err := io.ReadAll(broken); !errors.Is(err, iotest.ErrTimeout) || string(got) != "a" {
		t.Errorf("%q, %v, want what came and the error", got, err)
	}
}

func TestWireSendsFrames(t *testing.T) {
	sent := &pieces{}
	w := newWire(sent)
	frame := []byte{0, 0, 0, 1, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o'}
	for range 2 {
		for _, part := range [][]byte{frame[:4], frame[4:8], frame[8:]} {
			if n, err := w.Write(part); n != len(part) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
	}
	if len(sent.writes) != 2 || !bytes.Equal(sent.writes[0], frame) || !bytes.Equal(sent.writes[1], frame) {
		t.Errorf("sent in pieces: %q", sent.writes)
	}
}

type pieces struct{ writes [][]byte }

func (p *pieces) Read([]byte) (int, error) { return 0, io.EOF }
func (p *pieces) Close() error             { return nil }
func (p *pieces) Write(b []byte) (int, error) {
	p.writes = append(p.writes, bytes.Clone(b))
	return len(b), nil
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		d.set(time.Now().Add(time.Second))
		d.set(time.Now().Add(time.Minute)) // the first one's timer must not count
		time.Sleep(2 * time.Second)        // of the bubble's clock
		if isClosed(d.passed) {
			t.Error("a deadline that was moved has passed")
		}
		start := time.Now()
		<-d.wait()
		if waited := time.Since(start); waited != 58*time.Second {
			t.Errorf("waited %v, want 58s", waited)
		}
		d.set(time.Time{})
		if isClosed(d.passed) {
			t.Error("a deadline that was taken back has passed")
		}
		d.set(time.Now().Add(-time.Second))
		<-d.wait()
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		config := &rest.Config{}
		r.add(config, "shop")
		if !r.has(config, "shop") || r.has(config, "other") || r.has(&rest.Config{}, "shop") {
			t.Error("the wrong refusals are known")
		}
		time.Sleep(RefusalTTL) // of the bubble's clock
		if r.has(config, "shop") {
			t.Error("a refusal is known for too long")
		}
		for i := range 2 * MaxRefusals {
			r.add(config, fmt.Sprint(i))
		}
		if len(r.until) > MaxRefusals {
			t.Errorf("%d refusals are remembered", len(r.until))
		}
	})
}

func TestRefused(t *testing.T) {
	for want, errs := range map[bool][]error{
		true: {
			httpproxy.Status(403, "Forbidden", ""), httpproxy.Status(501, "", ""), httpproxy.Status(426, "", ""),
			&httpstream.UpgradeFailureError{Cause: httpproxy.Status(403, "Forbidden", "")},
			statusError(404, []byte("404 page not found")), statusError(200, []byte("<html>a login page</html>")),
			statusError(400, []byte("Upgrade request required")),
		},
		false: {
			errors.New("connection refused"), httpproxy.Status(500, "", ""), httpproxy.Status(503, "", ""), statusError(401, nil),
			statusError(404, []byte(`{"status":"Failure","reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404}`)),
			statusError(400, []byte("pod x does not have a host assigned")),
		},
	} {
		for _, err := range errs {
			if got := refused(err); got != want {
				t.Errorf("refused(%v) = %v, want %v", err, got, want)
			}
		}
	}
}

func TestRouteNarrow(t *testing.T) {
	seed := maphash.MakeSeed()
	var all []endpoint
	for i := range 100 {
		all = append(all, endpoint{podName{"shop", fmt.Sprint(i)}, 80})
	}
	first, second := &route{endpoints: append([]endpoint(nil), all...)}, &route{endpoints: append(all[50:], all...)}
	first.narrow(seed)
	second.narrow(seed)
	if len(first.endpoints) != spread || fmt.Sprint(first.endpoints) != fmt.Sprint(second.endpoints) {
		t.Errorf("%v and %v, want the same %d", first.endpoints, second.endpoints, spread)
	}
	if e, ok := first.choose(seed, "", first.endpoints[:spread-1]); !ok || e != first.endpoints[spread-1] {
		t.Errorf("chose %v, want the one that has not failed", e)
	}
	if _, ok := first.choose(seed, "", first.endpoints); ok {
		t.Error("chose one that has failed")
	}
}

func TestCookieDomain(t *testing.T) {
	const host = "b.shop.pod.localhost" // 80.a.b.shop.pod.localhost is another pod
	for cookie, want := range map[string]string{
		"a=b": "a=b", "a=domain; Path=/": "a=domain; Path=/", "a=b; Domain=.localhost; Secure": "a=b; Secure",
		"a=b;DOMAIN = svc.localhost ;Path=/": "a=b;Path=/", "a=b; Domain=": "a=b", "a=b; domain": "a=b",
		"a=b; Domain=" + host: "a=b", "a=b; Domain=x." + host: "a=b", "a=b; Domain=example.com": "a=b",
		"a=b; Domain=" + host + "; Domain=localhost": "a=b",
	} {
		h := http.Header{"Set-Cookie": {cookie}}
		if localizeCookies(h); h.Get("Set-Cookie") != want {
			t.Errorf("%q became %q, want %q", cookie, h.Get("Set-Cookie"), want)
		}
	}
}

func TestWithoutPrefix(t *testing.T) {
	const prefix = "/api/v1/namespaces/shop/services/web:80/proxy"
	for at, want := range map[string]string{
		prefix: "/", prefix + "/a%2Fb?x#y": "/a%2Fb?x#y", "https://api:6443/base" + prefix + "/a": "/a", prefix + "x": prefix + "x",
		"/other": "/other", "https://api:6443" + prefix + "//evil.test/x": "/.//evil.test/x", // not another host
	} {
		if got := withoutPrefix(at, prefix); got != want {
			t.Errorf("%s became %s, want %s", at, got, want)
		}
	}
}
