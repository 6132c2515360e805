package vouch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/filewatch"
	"varco.dev/internal/httpproxy/identity"
)

const (
	trustPeriod  = 30 * time.Second // between two looks at the ConfigMap; authorities are changed by adding before removing
	trustTimeout = 10 * time.Second // of one look
	trustRetry   = 5 * time.Second  // between two tries at the start

	trustName = "extension-apiserver-authentication" // of the ConfigMap, in kube-system
)

// trusted says which client certificates count, and for what. It is never changed.
type trusted struct {
	content  [sha256.Size]byte // of what it was made from
	clients  *x509.CertPool    // authorities of clients; nil: none
	proxies  *x509.CertPool    // authorities of front proxies; nil: none
	hints    *x509.CertPool    // both, for clients that choose a certificate by the authorities that the server names
	allowed  []string          // common names of front proxies; empty: all
	headers  identity.Headers  // that front proxies write, and that the API server reads
	authReqs certificateAuthenticators
}

// TrustConfig is what NewTrust wants to know. What the files do not say comes from the ConfigMap
// kube-system/extension-apiserver-authentication, which kube-apiserver keeps.
type TrustConfig struct {
	// ClientCAFile holds the authorities of clients, in PEM. Optional.
	ClientCAFile string
	// ProxyCAFile holds the authorities of front proxies, in PEM. Optional.
	ProxyCAFile string
	// AllowedNames are the common names of front proxies, and Headers what they write and the API server reads. They count with
	// ProxyCAFile only. No names: all.
	AllowedNames []string
	Headers      identity.Headers
	// Otherwise are the headers that the API server reads where neither file nor ConfigMap says so. Optional: none, and client
	// certificates cannot be carried over then.
	Otherwise identity.Headers
	// Client reads the ConfigMap. nil: it is not read.
	Client kubernetes.Interface
	// Tolerate begins without the ConfigMap if it cannot be read at the start.
	Tolerate bool
	Words    Words
	Log      *slog.Logger // required
}

// Trust keeps what is trusted up to date, from files and from the API server's ConfigMap. It is an authenticator.Request, of
// clients with certificates and those that front proxies name.
type Trust struct {
	config TrustConfig
	log    *slog.Logger
	now    atomic.Pointer[trusted]

	reloading sync.Mutex // guards said
	said      string     // what was wrong the last time
}

// NewTrust returns a Trust that trusts nobody; Start loads what it is to trust.
func NewTrust(c TrustConfig) *Trust {
	t := &Trust{config: c, log: c.Log}
	t.now.Store(&trusted{headers: c.Otherwise})
	return t
}

// Headers returns the names of the fields that carry an identity, as they are now.
func (t *Trust) Headers() identity.Headers { return t.now.Load().headers }

// Files returns the names of those that Reload reads; some may be empty.
func (t *Trust) Files() []string { return []string{t.config.ClientCAFile, t.config.ProxyCAFile} }

// Start loads what is to be trusted, and waits for the API server if it is away: without, client certificates would count for
// nothing, and their owners be strangers.
func (t *Trust) Start(ctx context.Context) error {
	for {
		err := t.load(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case t.config.Tolerate:
			t.log.Warn("the cluster's authentication configuration cannot be read; client certificates may not count", "error", err)
			return nil
		case !passing(err):
			return err
		}
		t.log.Warn("waiting for the cluster's authentication configuration", "retry", trustRetry, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(trustRetry):
		}
	}
}

// passing says whether an error may go away by itself.
func passing(err error) bool {
	var file *os.PathError
	return !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) && !errors.Is(err, errNoTrust) && !errors.As(err, &file)
}

var errNoTrust = errors.New("the authentication configuration cannot be used")

// Run follows the sources until the context ends. What cannot be read leaves all as it was.
func (t *Trust) Run(ctx context.Context) error { return Every(ctx, trustPeriod, t.Reload) }

// Reload reads all sources again.
func (t *Trust) Reload(ctx context.Context) {
	t.reloading.Lock()
	defer t.reloading.Unlock()
	err := t.load(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		t.said = ""
	case err.Error() != t.said:
		t.said = err.Error()
		t.log.Warn("the authentication configuration cannot be read again; what is known stays", "error", err)
	}
}

// load reads all sources once.
func (t *Trust) load(ctx context.Context) error {
	data, err := t.read(ctx)
	if err != nil {
		return err
	}
	next, err := data.trusted()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoTrust, err)
	}
	if old := t.now.Load(); old.content != next.content {
		t.now.Store(next)
		t.log.Info("client certificates are judged by", "clientAuthority", next.clients != nil, "frontProxyAuthority", next.proxies != nil, "userHeaders", next.headers.Users)
		if len(data.Allowed) == 0 && len(data.ProxyCA) > 0 && bytes.Contains(data.ClientCA, bytes.TrimSpace(data.ProxyCA)) {
			t.log.Warn("every client certificate may speak for everybody: the authority of front proxies is one of clients too, and " + t.config.Words.AllowedNames + " is empty")
		}
	}
	return nil
}

// trustData is what the sources say.
type trustData struct {
	ClientCA, ProxyCA []byte
	Allowed           []string
	Headers           identity.Headers
}

func (t *Trust) read(ctx context.Context) (trustData, error) {
	var data trustData
	if err := t.lookUp(ctx, &data); err != nil {
		return data, err
	}
	if name := t.config.ClientCAFile; name != "" {
		content, err := authorities(name)
		if err != nil {
			return data, fmt.Errorf("%s: %w", t.config.Words.ClientCA, err)
		}
		data.ClientCA = content
	}
	if name := t.config.ProxyCAFile; name != "" {
		content, err := authorities(name)
		if err != nil {
			return data, fmt.Errorf("%s: %w", t.config.Words.ProxyCA, err)
		}
		data.ProxyCA, data.Allowed, data.Headers = content, t.config.AllowedNames, t.config.Headers
	}
	if len(data.Headers.Users) == 0 {
		data.Headers = t.config.Otherwise
	}
	return data, nil
}

// authorities reads a file. An empty one is an error, not nobody to trust: it may be about to be written.
func authorities(name string) ([]byte, error) {
	content, err := filewatch.Read(name, filewatch.Most)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(content) {
		err = fmt.Errorf("%w: %s holds no certificate in PEM", errNoTrust, name)
	}
	return content, err
}

// lookUp asks the API server, unless the files say all.
func (t *Trust) lookUp(ctx context.Context, data *trustData) error {
	all := t.config.ClientCAFile != "" && t.config.ProxyCAFile != ""
	if all || t.config.Client == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	found, err := t.config.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, trustName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil // an API server without these flags
	case apierrors.IsForbidden(err):
		return fmt.Errorf("read the ConfigMap %s/%s: %w (bind the Role %[1]s/%[2]s-reader to this account, or give %[4]s and %[5]s)",
			metav1.NamespaceSystem, trustName, err, t.config.Words.ClientCA, t.config.Words.ProxyCA)
	case err != nil:
		return fmt.Errorf("read the ConfigMap %s/%s: %w", metav1.NamespaceSystem, trustName, err)
	}
	return data.take(found)
}

func (d *trustData) take(found *corev1.ConfigMap) error {
	d.ClientCA, d.ProxyCA = []byte(found.Data["client-ca-file"]), []byte(found.Data["requestheader-client-ca-file"])
	for key, into := range map[string]*[]string{
		"requestheader-username-headers": &d.Headers.Users, "requestheader-uid-headers": &d.Headers.UIDs,
		"requestheader-group-headers": &d.Headers.Groups, "requestheader-extra-headers-prefix": &d.Headers.ExtraPrefixes,
		"requestheader-allowed-names": &d.Allowed,
	} {
		text := found.Data[key]
		if text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return fmt.Errorf("%w: %s in the ConfigMap %s: %w", errNoTrust, key, trustName, err)
		}
	}
	return nil
}

func (d *trustData) trusted() (*trusted, error) {
	encoded, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	t := &trusted{content: sha256.Sum256(encoded), allowed: d.Allowed, headers: d.Headers, hints: x509.NewCertPool()}
	if t.clients, err = pool("the authorities of clients", d.ClientCA, t.hints); err != nil {
		return nil, err
	}
	if t.proxies, err = pool("the authorities of front proxies", d.ProxyCA, t.hints); err != nil {
		return nil, err
	}
	t.authReqs = newCertificateAuthenticators(t)
	return t, nil
}

func pool(what string, pem []byte, hints *x509.CertPool) (*x509.CertPool, error) {
	if len(pem) == 0 {
		return nil, nil
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read %s: there is no certificate in PEM", what)
	}
	hints.AppendCertsFromPEM(pem)
	return p, nil
}
