package cluster_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// pair makes a client certificate and its key, as PEM.
func pair(t *testing.T, serial int64) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("user ", serial)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// givesCertificate has the plugin give a client certificate from now on.
func (p plugin) givesCertificate(serial int64) {
	certificate, key := pair(p.t, serial)
	p.gives(fmt.Sprintf(`{"clientCertificateData": %q, "clientKeyData": %q}`, certificate, key))
}

// TestReplayCertificate has the API server refuse a client certificate that can be renewed. Requests go over new
// connections then; what is open stays open.
func TestReplayCertificate(t *testing.T) {
	tests := map[string]func(t *testing.T) (user *clientcmdapi.AuthInfo, give func(serial int64)){
		"exec plugin": func(t *testing.T) (*clientcmdapi.AuthInfo, func(int64)) {
			p := newPlugin(t)
			return p.user(), p.givesCertificate
		},
		"files": func(t *testing.T) (*clientcmdapi.AuthInfo, func(int64)) {
			dir := t.TempDir()
			user := &clientcmdapi.AuthInfo{ClientCertificate: filepath.Join(dir, "crt"), ClientKey: filepath.Join(dir, "key")}
			return user, func(serial int64) {
				certificate, key := pair(t, serial)
				put(t, user.ClientCertificate, certificate)
				put(t, user.ClientKey, key)
			}
		},
	}
	for name, make := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t, asksForCertificates)
			user, give := make(t)
			give(1)
			a.acceptCertificates("1")
			s := newStage(t, a, user)
			c := s.get("")
			if got := answer(t, c, get("/first")); got[:3] != "200" {
				t.Fatal(got)
			}
			say := echo(t, c)
			stream, err := ask(t, c, get("/w?watch=1"), true)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Body.Close()
			if name == "files" {
				time.Sleep(1100 * time.Millisecond) // client-go reads the files once a second, by the clock
			}
			give(2)
			a.acceptCertificates("2")
			before := len(a.requests())
			if got := answer(t, c, get("/second")); got != "200 HTTP/1.1 GET /second" {
				t.Errorf("ordinary: %s", got)
			}
			if n := len(a.requests()) - before; n != 2 {
				t.Errorf("%d requests, want 2: one refused, one not", n)
			}
			again, err := ask(t, c, get("/w?watch=1"), true)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Body.Close()
			if got := firstLine(t, again.Body); got != "HTTP/2.0 event\n" {
				t.Errorf("watch: %s", got)
			}
			echo(t, c)
			if r, _ := a.last(); serial(r) != "2" {
				t.Errorf("the upgrade shows the certificate %s", serial(r))
			}
			if got := say("still there"); got != "echo still there" {
				t.Errorf("the open upgrade: %s", got)
			}
			s.until("one ordinary connection and two of watches are left", func() bool { return a.open() == 3 })
			if name != "files" { // client-go cuts those when a file changes
				if got := firstLine(t, stream.Body); got != "HTTP/2.0 event\n" {
					t.Errorf("the open watch: %s", got)
				}
			}
		})
	}
}

// TestUpgradeOutlivesCertificate changes the file of the client's certificate. The next session shows the new one; the
// one that is open goes on, which client-go's own dialer would cut.
func TestUpgradeOutlivesCertificate(t *testing.T) {
	a, dir := newAPI(t, asksForCertificates), t.TempDir()
	user := &clientcmdapi.AuthInfo{ClientCertificate: filepath.Join(dir, "crt"), ClientKey: filepath.Join(dir, "key")}
	give := func(serial int64) {
		certificate, key := pair(t, serial)
		put(t, user.ClientCertificate, certificate)
		put(t, user.ClientKey, key)
	}
	give(1)
	s := newStage(t, a, user)
	say := echo(t, s.get(""))
	give(2)
	time.Sleep(1100 * time.Millisecond) // client-go reads the files once a second, by the clock
	for range 2 {
		echo(t, s.get(""))
	}
	if r, _ := a.last(); serial(r) != "2" {
		t.Errorf("the next session shows the certificate %s", serial(r))
	}
	if got := say("still there"); got != "echo still there" {
		t.Errorf("the open session: %s", got)
	}
}

// TestCertificateExpires has the plugin say when its certificate expires: the next request shows another one, without
// having been refused.
func TestCertificateExpires(t *testing.T) {
	a, p := newAPI(t, asksForCertificates), newPlugin(t)
	s := newStage(t, a, p.user())
	certificate, key := pair(t, 1)
	expires := time.Now().Add(2 * time.Second)
	p.gives(fmt.Sprintf(`{"clientCertificateData": %q, "clientKeyData": %q, "expirationTimestamp": %q}`,
		certificate, key, expires.Format(time.RFC3339)))
	a.acceptCertificates("1")
	if got := answer(t, s.get(""), get("/x")); got[:3] != "200" {
		t.Fatal(got)
	}
	p.givesCertificate(2)
	a.acceptCertificates("2")
	time.Sleep(time.Until(expires)) // client-go goes by the clock
	if got := answer(t, s.get(""), get("/x")); got[:3] != "200" {
		t.Error(got)
	}
	if r, _ := a.last(); serial(r) != "2" || len(a.requests()) != 2 {
		t.Errorf("the certificate %s after %d requests, want 2 after 2", serial(r), len(a.requests()))
	}
}

// TestCertificateRefused has a certificate refused while other requests wait for their answers: they are not cut.
func TestCertificateRefused(t *testing.T) {
	a, p := newAPI(t, asksForCertificates), newPlugin(t)
	s := newStage(t, a, p.user())
	c := s.get("")
	p.givesCertificate(1)
	a.acceptCertificates("1", "2")
	answer(t, c, get("/first"))
	a.mu.Lock()
	a.arrived, a.gate = make(chan struct{}, 100), make(chan struct{})
	a.mu.Unlock()
	var waiting sync.WaitGroup
	for i := range 5 {
		waiting.Go(func() {
			if got := answer(t, c, get(fmt.Sprint("/", i))); got[:3] != "200" {
				t.Errorf("a request that waits: %s", got)
			}
		})
		<-a.arrived
	}
	p.givesCertificate(2)
	a.acceptCertificates("2")
	waiting.Go(func() {
		if got := answer(t, c, get("/refused")); got[:3] != "200" {
			t.Errorf("the request that is refused: %s", got)
		}
	})
	<-a.arrived
	close(a.gate)
	waiting.Wait()
	if r, _ := a.last(); serial(r) != "2" || p.runs() != 2 {
		t.Errorf("the last request shows the certificate %s after %d runs of the plugin", serial(r), p.runs())
	}
}

// TestAuthorityFile has the file of authorities change. client-go looks at it every 5 minutes; new transports, here
// because the token in the kubeconfig changes too, read it at once.
func TestAuthorityFile(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"}, func(s *stage) {
		c := s.file.Clusters["main"]
		c.CertificateAuthority, c.CertificateAuthorityData = filepath.Join(s.dir, "ca"), nil
		other, _ := pair(t, 9)
		put(t, c.CertificateAuthority, other)
	})
	if got := answer(t, s.get(""), get("/x")); got[:5] != "error" {
		t.Fatalf("with another authority: %s", got)
	}
	put(t, filepath.Join(s.dir, "ca"), string(a.authority()))
	s.file.AuthInfos["main"].Token = "two"
	s.save()
	s.get("").Refresh()
	everyLane(t, s)
}
