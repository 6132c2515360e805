package apiserverproxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// with is a stage whose Service answers so, and the original beside it.
func with(t *testing.T, h http.HandlerFunc) (s *stage, ask func(raw string) (original, ours answer)) {
	s = newStage(t, oneWeb())
	s.target("10.1.0.1:80", h)
	upstream := s.original("http://10.1.0.1:80")
	return s, func(raw string) (answer, answer) {
		t.Helper()
		return s.ask(upstream, raw), s.ask(s.ours, raw)
	}
}

func testCORS(t *testing.T) {
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, k := range []string{"Credentials", "Headers", "Methods", "Origin"} {
			w.Header().Set("Access-Control-Allow-"+k, "x")
		}
		w.Header().Set("Access-Control-Max-Age", "5")
	})
	original, ours := ask(simple("GET", service+"/"))
	if len(original.header["Access-Control-Allow-Origin"]) > 0 || original.header.Get("Access-Control-Max-Age") != "5" {
		t.Errorf("the original answers %v", original.header)
	}
	alike(t, original, ours)
}

func testForTheHost(t *testing.T) {
	names := []string{"Alt-Svc", "Clear-Site-Data", "NEL", "Report-To", "Strict-Transport-Security"}
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range names {
			w.Header().Set(name, "x")
		}
	})
	original, ours := ask(simple("GET", service+"/"))
	for _, name := range names {
		if original.header.Get(name) == "" || ours.header.Get(name) != "" {
			t.Errorf("%s: the original answers %q, ours %q", name, original.header.Get(name), ours.header.Get(name))
		}
	}
}

func testLocation(t *testing.T) {
	for location, moved := range map[string]string{
		"/login":                      service + "/login",
		"/login/?a=b#c":               service + "/login/?a=b#c",
		"login":                       "login",
		"../up":                       "../up",
		"http://10.1.0.1:80/x":        service + "/x",
		"http://api.example/x":        "http://api.example" + service + "/x",
		"https://elsewhere.example/x": "https://elsewhere.example/x",
		"//elsewhere.example/x":       "//elsewhere.example/x",
		service + "/there":            service + "/there",
	} {
		for _, code := range []int{201, 302, 307} {
			_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(code)
			})
			original, ours := ask(simple("GET", service+"/page"))
			if got := original.header.Get("Location"); got != moved || original.code != code {
				t.Errorf("%s: the original answers %d %q", location, original.code, got)
			}
			alike(t, original, ours)
		}
	}
}

func testBrokenLocation(t *testing.T) {
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://[::1")
		w.WriteHeader(302)
	})
	original, ours := ask(simple("GET", service+"/"))
	if original.code != 500 || ours.code != 500 || !strings.Contains(ours.body, "error trying to parse Location header") {
		t.Errorf("the original answers %d %s, ours %d %s", original.code, original.body, ours.code, ours.body)
	}
}

const page, movedPage = `<a href="/rewriteme">test</a>`, `<a href="` + service + `/rewriteme">test</a>`

func testHTML(t *testing.T) {
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, page)
	})
	original, ours := ask(simple("GET", service+"/"))
	if original.body != movedPage {
		t.Errorf("the original answers %q", original.body)
	}
	ours.header.Del("Transfer-Encoding")
	alike(t, original, ours)
}

func testHTMLBrotli(t *testing.T) {
	var packed bytes.Buffer
	w := brotli.NewWriter(&packed)
	fmt.Fprint(w, page)
	w.Close()
	s, _ := with(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Encoding", "br")
		w.Write(packed.Bytes())
	})
	if resp, err := http.Get(s.original("http://10.1.0.1:80").URL + service + "/"); err == nil {
		if b, err := io.ReadAll(resp.Body); err == nil && bytes.Equal(b, packed.Bytes()) {
			t.Error("the original passes it on by now")
		}
		resp.Body.Close()
	}
	ours := s.get(service+"/", "Accept-Encoding: br")
	got, err := io.ReadAll(brotli.NewReader(strings.NewReader(ours.body)))
	if err != nil || string(got) != movedPage || ours.header.Get("Content-Encoding") != "br" {
		t.Errorf("ours answers %v %q: %v", ours.header, got, err)
	}
}

func testHTMLHead(t *testing.T) {
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("ETag", `"a"`)
	})
	original, ours := ask(simple("HEAD", service+"/"))
	if original.code < 500 || ours.code != 200 || ours.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("the original answers %d, ours %d %v", original.code, ours.code, ours.header)
	}
}

func testHTMLRange(t *testing.T) {
	part := `<a href="/x">y`
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/1000", len(part)-1))
		w.WriteHeader(206)
		fmt.Fprint(w, part)
	})
	original, ours := ask(simple("GET", service+"/", "Range: bytes=0-13"))
	if original.body == part || ours.body != part || ours.code != 206 {
		t.Errorf("the original answers %q, ours %d %q", original.body, ours.code, ours.body)
	}
}

func testHTMLStream(t *testing.T) {
	goOn := make(chan struct{})
	s, _ := with(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, page)
		w.(http.Flusher).Flush()
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
	})
	first := func(server *httptest.Server) (<-chan string, func()) {
		resp := make(chan string, 1)
		req, _ := http.NewRequest("GET", server.URL+service+"/", nil)
		got, err := make(chan *http.Response, 1), make(chan error, 1)
		go func() {
			r, e := http.DefaultClient.Do(req)
			if e != nil {
				err <- e
				return
			}
			got <- r
			b := make([]byte, len(movedPage))
			if _, e := io.ReadFull(r.Body, b); e == nil {
				resp <- string(b)
			}
		}()
		return resp, func() {
			select {
			case r := <-got:
				r.Body.Close()
			case <-err:
			}
		}
	}
	theirs, endTheirs := first(s.original("http://10.1.0.1:80"))
	ours, endOurs := first(s.ours)
	select {
	case got := <-ours:
		if got != movedPage {
			t.Errorf("ours begins with %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("ours does not begin before the page is complete")
	}
	select {
	case <-theirs:
		t.Error("the original begins before the page is complete, too")
	default:
	}
	close(goOn)
	endTheirs()
	endOurs()
}

func testCookiePath(t *testing.T) {
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "a=b; Path=/app; HttpOnly")
	})
	original, ours := ask(simple("GET", service+"/"))
	if got := original.header.Get("Set-Cookie"); got != "a=b; Path=/app; HttpOnly" {
		t.Errorf("the original answers %q", got)
	}
	if got := ours.header.Get("Set-Cookie"); got != "a=b; Path="+service+"/app; HttpOnly" {
		t.Errorf("ours answers %q", got)
	}
}

// appProtocol gives the only port of a Service a protocol.
func appProtocol(objects []runtime.Object, protocol string) []runtime.Object {
	objects[0].(*corev1.Service).Spec.Ports[0].AppProtocol = &protocol
	objects[1].(*discoveryv1.EndpointSlice).Ports[0].AppProtocol = &protocol
	return objects
}

func testH2C(t *testing.T) {
	s := newStage(t, appProtocol(oneWeb(), "kubernetes.io/h2c"))
	s.target("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		fmt.Fprint(w, r.Proto)
		w.Header().Set("Grpc-Status", "0")
	}, func(server *httptest.Server) {
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
	})
	if a := s.ask(s.original("http://10.1.0.1:80"), simple("GET", service+"/")); a.code == 200 {
		t.Errorf("the original can do it, too: %d %s", a.code, a.body)
	}
	resp, err := http.Get(s.ours.URL + service + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "HTTP/2.0" || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("got %q, trailer %v, %v", body, resp.Trailer, err)
	}
}

func testNamedPort(t *testing.T) {
	s := newStage(t, []runtime.Object{pod("a", "10.1.0.7", "http=8080", "admin=9090")})
	s.target("10.1.0.7:9090", echo)
	if a := s.get("/api/v1/namespaces/ns/pods/a:admin/proxy/x"); a.code != 200 || a.header.Get("X-Varco-Backend") != "10.1.0.7:9090" {
		t.Errorf("got %d %v %s", a.code, a.header, a.body)
	}
}

func testOnlyPort(t *testing.T) {
	s := newStage(t, web([]string{"main=80"}, pod("web-a", "10.1.0.1")))
	s.target("10.1.0.1:80", echo)
	if a := s.get(service + "/x"); a.code != 200 {
		t.Errorf("got %d %s", a.code, a.body)
	}
}

func testAppProtocol(t *testing.T) {
	for id, c := range map[string]struct {
		port, protocol string
		code           int
	}{
		"web":        {"=80", "https", 200},
		"web:https":  {"https=80", "", 200},
		"web:80":     {"https-admin=80", "", 200},
		"https:web:": {"=80", "", 200},
		"http:web:":  {"=80", "https", 400}, // said so in the URL: the target is spoken to without TLS
	} {
		s := newStage(t, appProtocol(web([]string{c.port}, pod("web-a", "10.1.0.1")), c.protocol))
		s.target("10.1.0.1:80", echo, overTLS)
		if a := s.get("/api/v1/namespaces/ns/services/" + id + "/proxy/"); a.code != c.code {
			t.Errorf("%s with port %s, appProtocol %q: got %d %s", id, c.port, c.protocol, a.code, a.body)
		}
	}
}
