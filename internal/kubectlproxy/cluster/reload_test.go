package cluster_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/kubectlproxy/cluster"
)

// TestReload edits the kubeconfig while the proxy runs, as a user does.
func TestReload(t *testing.T) {
	t.Parallel() // waits for the clock
	first, second := newAPI(t), newAPI(t)
	s := newStage(t, first, &clientcmdapi.AuthInfo{Token: "one"}, func(s *stage) {
		s.config.Contexts = []string{cluster.AllContexts}
		s.add("other", second, &clientcmdapi.AuthInfo{Token: "two"})
		s.add("third", second, &clientcmdapi.AuthInfo{Token: "three"})
	})
	third := s.get("third")
	stream, err := ask(t, s.get(""), get("/w?watch=1"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	say := echo(t, s.get(""))
	s.run()

	s.file.CurrentContext = "other"
	s.save()
	s.until("the other context", func() bool { return s.get("").Name == "other" })
	answer(t, s.get(""), get("/x"))
	if r, _ := second.last(); bearer(r) != "two" {
		t.Errorf("the token is %q, want two", bearer(r))
	}
	if got := say("still there"); got != "echo still there" {
		t.Errorf("the open upgrade: %q", got)
	}
	if got := firstLine(t, stream.Body); got != "HTTP/2.0 event\n" {
		t.Errorf("the open watch: %q", got)
	}
	if s.get("third") != third {
		t.Error("a context that has not changed was replaced")
	}

	before := s.get("")
	put(t, s.path, "{[ no YAML")
	s.until("a line about the broken file", func() bool { return strings.Contains(s.log.String(), "cannot be used") })
	if s.get("") != before {
		t.Error("the broken file was taken over")
	}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	s.until("a line about the missing file", func() bool { return strings.Count(s.log.String(), "cannot be used") == 2 })
	if got := answer(t, s.get(""), get("/x")); got != "200 HTTP/1.1 GET /x" {
		t.Errorf("without a file: %s", got)
	}

	delete(s.file.Contexts, "third")
	s.save()
	s.until("the third is gone", func() bool { _, err := s.clusters.Get("third"); return apierrors.IsNotFound(err) })
	if got := answer(t, third, get("/x")); got != "200 HTTP/1.1 GET /x" {
		t.Errorf("for those who have it: %s", got)
	}
	if s.get("") != before {
		t.Error("the current context has not changed but was replaced")
	}
	if n := strings.Count(s.log.String(), "cannot be used; what"); n != 2 {
		t.Errorf("%d lines about broken files, want 2:\n%s", n, s.log)
	}
}

// TestReloadToNothing empties the kubeconfig, and names a current context that does not exist: the last that could be
// used stays in use.
func TestReloadToNothing(t *testing.T) {
	t.Parallel() // waits for the clock
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"})
	before := s.get("")
	s.run()
	put(t, s.path, "")
	s.until("a line about the empty file", func() bool { return strings.Contains(s.log.String(), "no contexts any more") })
	s.file.CurrentContext = "typo"
	s.save()
	s.until("a line about the name", func() bool { return strings.Contains(s.log.String(), "the one before stays in use") })
	if s.get("") != before {
		t.Error("the cluster was replaced")
	}
}

// TestReloadChanges changes one thing each time, and sees whether the cluster is replaced.
func TestReloadChanges(t *testing.T) {
	tests := []struct {
		name    string
		change  func(s *stage)
		replace bool
	}{
		{"nothing", func(s *stage) { s.save() }, false},
		{"a remark", func(s *stage) {
			data, err := os.ReadFile(s.path)
			if err != nil {
				s.t.Fatal(err)
			}
			put(s.t, s.path, string(data)+"# a remark\n")
		}, false},
		{"another context", func(s *stage) { s.file.Contexts["x"] = &clientcmdapi.Context{}; s.save() }, false},
		{"namespace", func(s *stage) { s.file.Contexts["main"].Namespace = "x"; s.save() }, false},
		{"content of the token file", func(s *stage) {
			put(s.t, filepath.Join(s.dir, "token"), "two")
			s.file.Contexts["x"] = &clientcmdapi.Context{} // or else the kubeconfig is not read again
			s.save()
		}, false},
		{"proxy", func(s *stage) { s.file.Clusters["main"].ProxyURL = "http://127.0.0.1:2"; s.save() }, true},
		{"server name", func(s *stage) { s.file.Clusters["main"].TLSServerName = "example.com"; s.save() }, true},
		{"impersonation", func(s *stage) { s.file.AuthInfos["main"].Impersonate = "x"; s.save() }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, newAPI(t), nil, func(s *stage) {
				put(t, filepath.Join(s.dir, "token"), "one")
				s.file.AuthInfos["main"] = &clientcmdapi.AuthInfo{TokenFile: filepath.Join(s.dir, "token")}
				s.file.Clusters["main"].ProxyURL = "http://127.0.0.1:1"
			})
			before := s.get("")
			tt.change(s)
			before.Refresh()
			if replaced := s.get("") != before; replaced != tt.replace {
				t.Errorf("replaced: %v", replaced)
			}
		})
	}
}

// TestReplacedClusterLetsGo replaces a cluster: its connections are closed as soon as nobody uses them.
func TestReplacedClusterLetsGo(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"})
	c := s.get("")
	last, err := ask(t, c, get("/x"), false)
	if err != nil {
		t.Fatal(err)
	}
	answer(t, c, get("/x"))
	if n := a.open(); n != 2 {
		t.Fatalf("%d connections, want 2", n)
	}
	s.file.AuthInfos["main"].Token = "two"
	s.save()
	c.Refresh()
	s.until("the idle connection is closed", func() bool { return a.open() == 1 })
	if _, err := io.ReadAll(last.Body); err != nil {
		t.Error(err)
	}
	last.Body.Close()
	s.until("the other one too", func() bool { return a.open() == 0 })
	if s.get("") == c {
		t.Error("the cluster was not replaced")
	}
}

// TestRefreshKeepsWhatIsAsked reads a kubeconfig that is being written: a request must not lose its context by that.
func TestRefreshKeepsWhatIsAsked(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"}, func(s *stage) {
		s.config.Contexts = []string{cluster.AllContexts}
		s.add("other", a, &clientcmdapi.AuthInfo{Token: "two"})
	})
	c := s.get("main")
	delete(s.file.Contexts, "main")
	s.file.CurrentContext = "other"
	s.save()
	c.Refresh()
	if s.get("main") != c {
		t.Error("the context is gone")
	}
}

// TestKubeconfigBeforeItsFiles has a kubeconfig name files of a certificate that are not there yet. What was read before stays in use
// until they come.
func TestKubeconfigBeforeItsFiles(t *testing.T) {
	a, file := newAPI(t), filepath.Join(t.TempDir(), "certificate")
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"})
	before := s.get("")
	s.run()
	s.file.AuthInfos["main"] = &clientcmdapi.AuthInfo{Token: "two", ClientCertificate: file, ClientKey: file}
	s.save()
	s.until("the log says so", func() bool { return strings.Contains(s.log.String(), "the one before stays in use") })
	if s.get("") != before {
		t.Fatal("replaced by one that cannot be used")
	}
	certificate, key := pair(t, 1)
	put(t, file, certificate+key)
	s.until("the new one is in use", func() bool { return s.get("") != before })
	answer(t, s.get(""), get("/x"))
	if r, _ := a.last(); r.Header.Get("Authorization") != "Bearer two" {
		t.Errorf("sent %q", r.Header.Get("Authorization"))
	}
	if n := strings.Count(s.log.String(), "the one before stays in use"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestKubeconfigBeingWritten has a request refused while another program writes the kubeconfig: it emptied the file first.
func TestKubeconfigBeingWritten(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"})
	c := s.get("")
	a.accept("two")
	put(t, s.path, "")
	got := make(chan string)
	go func() { got <- answer(t, c, get("/x")) }()
	s.until("the empty file was read", func() bool { return strings.Contains(s.log.String(), "no contexts any more") })
	s.file.AuthInfos["main"].Token = "two"
	s.save()
	if got := <-got; got != "200 HTTP/1.1 GET /x" {
		t.Error(got)
	}
}

// TestServerMoved edits the server's address and the token: a request that was refused by the old one is not sent to it
// with the new one's credential.
func TestServerMoved(t *testing.T) {
	first, second := newAPI(t), newAPI(t)
	s := newStage(t, first, &clientcmdapi.AuthInfo{Token: "one"})
	c := s.get("")
	first.accept("nobody")
	s.add("main", second, &clientcmdapi.AuthInfo{Token: "two"})
	s.save()
	if got := answer(t, c, get("/x")); got[:3] != "401" {
		t.Errorf("got %s", got)
	}
	if n := len(first.requests()); n != 1 {
		t.Errorf("%d requests to the old server, want 1", n)
	}
	if got := answer(t, s.get(""), get("/x")); got[:3] != "200" || len(second.requests()) != 1 {
		t.Errorf("the next request: %s", got)
	}
	if r := second.requests()[0]; bearer(r) != "two" || r.Method != http.MethodGet {
		t.Errorf("it had the token %q", bearer(r))
	}
}

// TestEditsUnderLoad edits the token in the kubeconfig while requests are served, again and again. None may fail.
func TestEditsUnderLoad(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "0"})
	for i := range 30 {
		token := fmt.Sprint(i + 1)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 10 {
					if got := answer(t, s.get(""), post("/x", "body")); got != "200 HTTP/1.1 POST /x" {
						t.Errorf("edit %d: %s", i, got)
					}
				}
			})
		}
		a.accept(fmt.Sprint(i), token)
		s.file.AuthInfos["main"].Token = token
		s.save()
		a.accept(token)
		all.Wait()
		if got := answer(t, s.get(""), get("/y")); got != "200 HTTP/1.1 GET /y" { // now at the latest the edit is seen
			t.Errorf("after edit %d: %s", i, got)
		}
	}
}
