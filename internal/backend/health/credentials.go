package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"varco.dev/internal/filewatch"
)

// lookAgain is how long files are believed not to have changed.
const lookAgain = 500 * time.Millisecond

// Files names what probes trust and show. All of it is optional.
type Files struct {
	CAFile             string // PEM; default: the system's CAs
	CertFile, KeyFile  string // PEM, of a client certificate
	TokenFile          string // a bearer token
	ServerName         string // to be in the backends' certificates; default: their address
	InsecureSkipVerify bool   // any certificate will do
}

// Credentials reads files, and again when they change. If that fails, such as when a certificate and its key are halfway replaced,
// what was read before stays in force and the fault is logged. It is safe for concurrent use.
type Credentials struct {
	tls   *watched[*tls.Config]
	token *watched[string]
}

// NewCredentials returns credentials of files, and reads nothing yet.
func NewCredentials(f Files, log *slog.Logger) *Credentials {
	return &Credentials{
		tls:   &watched[*tls.Config]{log: log, files: present(f.CAFile, f.CertFile, f.KeyFile), load: f.tls},
		token: &watched[string]{log: log, files: present(f.TokenFile), load: f.token},
	}
}

func present(files ...string) []string {
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// TLS is for Config.TLS. The error is that of the first reading.
func (c *Credentials) TLS(context.Context) (*tls.Config, error) { return c.tls.get() }

// Token is for Config.Token. The error is that of the first reading.
func (c *Credentials) Token() (string, error) { return c.token.get() }

func (f Files) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName, InsecureSkipVerify: f.InsecureSkipVerify}
	if f.CAFile != "" {
		pem, err := filewatch.Read(f.CAFile, filewatch.Most)
		if err != nil {
			return nil, fmt.Errorf("reading the CA: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the CA: %s has no certificate", f.CAFile)
		}
	}
	if f.CertFile != "" {
		cert, err := filewatch.ReadPair(f.CertFile, f.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

func (f Files) token() (string, error) {
	if f.TokenFile == "" {
		return "", nil
	}
	b, err := filewatch.Read(f.TokenFile, filewatch.Most)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// watched is a value that is read from files.
type watched[T any] struct {
	log   *slog.Logger
	files []string
	load  func() (T, error)

	mu      sync.Mutex // guards the fields below
	value   T
	loaded  bool
	seen    []os.FileInfo // of the files, when they were last read; nil: there was none
	looked  time.Time
	trouble string // that was logged last
}

// get returns the value, read again if a file has changed.
func (w *watched[T]) get() (T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.loaded && now.Sub(w.looked) < lookAgain {
		return w.value, nil
	}
	w.looked = now
	seen := w.look()
	if w.loaded && slices.EqualFunc(seen, w.seen, sameFile) {
		return w.value, nil
	}
	value, err := w.load()
	if err == nil {
		w.value, w.seen, w.loaded, w.trouble = value, seen, true, ""
		return value, nil
	}
	if !w.loaded {
		return value, err
	}
	if w.trouble != err.Error() {
		w.trouble = err.Error()
		w.log.Warn("what was read before stays in force", "error", err)
	}
	return w.value, nil
}

func (w *watched[T]) look() []os.FileInfo {
	out := make([]os.FileInfo, len(w.files))
	for i, f := range w.files {
		if info, err := os.Stat(f); err == nil { // follows the links of a mounted secret
			out[i] = info
		}
	}
	return out
}

// sameFile tells whether a file has not been changed or replaced.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
