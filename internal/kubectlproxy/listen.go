package kubectlproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"k8s.io/client-go/util/cert"

	"varco.dev/internal/kernel/peer"
)

// listen opens the port or the socket, with TLS if asked to.
func (p *Proxy) listen(ctx context.Context) (net.Listener, error) {
	secure, err := p.config.TLS.config(bare(p.config.Address), p.config.Log)
	if err != nil {
		return nil, err
	}
	var listener net.Listener
	if p.config.UnixSocket != "" {
		listener, err = listenUnix(ctx, p.config.UnixSocket)
	} else {
		listener, err = listenTCP(ctx, p.config.Address, p.config.Port)
	}
	if err != nil {
		return nil, err
	}
	bounded := &boundedListener{Listener: listener, slots: make(chan struct{}, p.config.MaxConnections), closed: make(chan struct{})}
	if secure == nil {
		return bounded, nil
	}
	return tls.NewListener(bounded, secure), nil
}

// bare takes the brackets off an IPv6 address.
func bare(address string) string { return strings.TrimSuffix(strings.TrimPrefix(address, "["), "]") }

func listenTCP(ctx context.Context, address string, port int) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(bare(address), strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: choose another with --port, or let 0 find one", err)
	}
	return listener, err
}

// listenUnix makes a socket that only this user can connect to. A socket that stands there already is replaced, as kubectl
// does; other files are not. It goes away with the listener.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replace the socket: %w", err)
		}
	}
	restore := privateFiles()
	defer restore()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("--unix-socket: %w by what is no socket: choose another path", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--unix-socket: %w", err)
	}
	own, err := os.Lstat(path)
	if unix, ok := listener.(*net.UnixListener); ok && err == nil {
		unix.SetUnlinkOnClose(false)
		return &unixListener{Listener: unix, path: path, own: own}, nil
	}
	return listener, nil
}

// unixListener removes its socket when it is closed, unless another process has put its own there.
type unixListener struct {
	net.Listener
	path string
	own  fs.FileInfo
	once sync.Once
}

// Close implements net.Listener. The socket goes first: while it is open, no other file can have its inode.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.own) {
			_ = os.Remove(l.path) // it would be replaced the next time
		}
	})
	return l.Listener.Close()
}

// config returns nil if no TLS is wanted. A certificate that is made is for this address and for localhost.
func (t TLS) config(address string, log *slog.Logger) (*tls.Config, error) {
	if !t.wanted() {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	pair, err := t.pair(address, log)
	if err != nil {
		return nil, err
	}
	c.GetCertificate = pair
	if t.ClientCAFile == "" {
		return c, nil
	}
	authorities, err := os.ReadFile(t.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-client-ca-file: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("--tls-client-ca-file: %s holds no certificate in PEM", t.ClientCAFile)
	}
	return c, nil
}

// pair returns what gives the certificate of a connection.
func (t TLS) pair(address string, log *slog.Logger) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if t.CertFile != "" {
		files := &pairFiles{cert: t.CertFile, key: t.KeyFile, log: log}
		_, err := files.get(nil)
		return files.get, err
	}
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey(address, nil, []string{"localhost", "*.localhost"})
	if err != nil {
		return nil, fmt.Errorf("--tls-self-signed: %w", err)
	}
	made, err := tls.X509KeyPair(certPEM, keyPEM)
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &made, nil }, err
}

// pairFiles are a certificate and its key, read again when they change.
type pairFiles struct {
	cert, key string
	log       *slog.Logger

	mu          sync.Mutex // guards the fields below
	certInfo    fs.FileInfo
	keyInfo     fs.FileInfo
	certificate *tls.Certificate
	said        string // why the files could not be read again, the last time
}

// get returns the pair as the files have it now, or the last good one.
func (f *pairFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.read()
	switch {
	case err == nil:
		f.said = ""
	case f.certificate == nil:
		return nil, err
	case err.Error() != f.said:
		f.said = err.Error()
		f.log.Warn("the certificate cannot be read again: the last good one stays in use", "error", err)
	}
	return f.certificate, nil
}

func (f *pairFiles) read() error {
	certInfo, err := os.Stat(f.cert)
	if err != nil {
		return fmt.Errorf("--tls-cert-file: %w", err)
	}
	keyInfo, err := os.Stat(f.key)
	if err != nil {
		return fmt.Errorf("--tls-private-key-file: %w", err)
	}
	if same(certInfo, f.certInfo) && same(keyInfo, f.keyInfo) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("--tls-cert-file and --tls-private-key-file: %w", err)
	}
	f.certificate, f.certInfo, f.keyInfo = &pair, certInfo, keyInfo
	return nil
}

func same(a, b fs.FileInfo) bool {
	return a != nil && b != nil && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// boundedListener has so many connections open at a time; further ones wait in the kernel's queue.
type boundedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &boundedConn{Conn: c, give: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close implements net.Listener.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// boundedConn gives its slot back when it is closed.
type boundedConn struct {
	net.Conn
	give func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.give()
	return c.Conn.Close()
}

// NetConn returns the connection below, as that of crypto/tls does: a reset needs it.
func (c *boundedConn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the writing half, which upgraded streams need.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// userKey is where a request's context has the user at the other end of its connection.
type userKey struct{}

// user is who has opened a connection, or why that cannot be told.
type user struct {
	uid uint32
	err error
}

// identify looks the user up at once: later the client's port may be another user's.
func identify(ctx context.Context, c net.Conn) context.Context {
	uid, err := peer.User(c)
	return context.WithValue(ctx, userKey{}, user{uid, err})
}
