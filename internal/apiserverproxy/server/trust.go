package server

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
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"

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

// trust keeps trusted up to date, from files and from the API server's ConfigMap.
type trust struct {
	options *options.DelegatingAuthenticationOptions
	client  kubernetes.Interface
	log     *slog.Logger
	said    string // what was wrong the last time
	now     atomic.Pointer[trusted]
}

func newTrust(o *options.DelegatingAuthenticationOptions, client kubernetes.Interface, log *slog.Logger) *trust {
	t := &trust{options: o, client: client, log: log}
	t.now.Store(&trusted{})
	return t
}

// start loads what is to be trusted, and waits for the API server if it is away: without, client certificates would count for
// nothing, and their owners be strangers.
func (t *trust) start(ctx context.Context) error {
	for {
		err := t.load(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case t.options.TolerateInClusterLookupFailure:
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
func (t *trust) Run(ctx context.Context) error { return every(ctx, trustPeriod, t.reload) }

func (t *trust) reload(ctx context.Context) {
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
func (t *trust) load(ctx context.Context) error {
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
			t.log.Warn("every client certificate may speak for everybody: the authority of front proxies is one of clients too, and --requestheader-allowed-names is empty")
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

func (t *trust) read(ctx context.Context) (trustData, error) {
	var data trustData
	if err := t.lookUp(ctx, &data); err != nil {
		return data, err
	}
	if name := t.options.ClientCert.ClientCA; name != "" {
		content, err := authorities(name)
		if err != nil {
			return data, fmt.Errorf("--client-ca-file: %w", err)
		}
		data.ClientCA = content
	}
	if h := t.options.RequestHeader; h.ClientCAFile != "" {
		content, err := authorities(h.ClientCAFile)
		if err != nil {
			return data, fmt.Errorf("--requestheader-client-ca-file: %w", err)
		}
		data.ProxyCA, data.Allowed = content, h.AllowedNames
		data.Headers = identity.Headers{Users: h.UsernameHeaders, UIDs: h.UIDHeaders, Groups: h.GroupHeaders, ExtraPrefixes: h.ExtraHeaderPrefixes}
	}
	return data, nil
}

// authorities reads a file. An empty one is an error, not nobody to trust: it may be about to be written.
func authorities(name string) ([]byte, error) {
	content, err := os.ReadFile(name)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(content) {
		err = fmt.Errorf("%w: %s holds no certificate in PEM", errNoTrust, name)
	}
	return content, err
}

// lookUp asks the API server, unless the flags say all.
func (t *trust) lookUp(ctx context.Context, data *trustData) error {
	all := t.options.ClientCert.ClientCA != "" && t.options.RequestHeader.ClientCAFile != ""
	if all || t.options.SkipInClusterLookup {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	found, err := t.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, trustName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil // an API server without these flags
	case apierrors.IsForbidden(err):
		return fmt.Errorf("read the ConfigMap %s/%s: %w (bind the Role %[1]s/%[2]s-reader to this account, or give --client-ca-file and --requestheader-client-ca-file)",
			metav1.NamespaceSystem, trustName, err)
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
