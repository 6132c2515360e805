package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"varco.dev/internal/filewatch"
)

// files checks all files and folders that must be there. The folder of the cache need not: it is made.
func (c *checks) files(conf Config) {
	for i, l := range conf.Listeners {
		if l.Mode == ModeHTTPS {
			field := fmt.Sprintf("listeners[%d].tls.", i)
			c.pair(field+"certFile", l.TLS.CertFile, field+"keyFile", l.TLS.KeyFile)
		}
	}
	h, s := conf.Health, conf.HTTPS
	c.authorities("health.caFile", h.CAFile)
	c.pair("health.certFile", h.CertFile, "health.keyFile", h.KeyFile)
	c.token("health.tokenFile", h.TokenFile)
	if conf.usesHTTPS() {
		c.authorities("https.clientCAFile", s.ClientCAFile)
		c.authorities("https.requestHeader.caFile", s.RequestHeader.CAFile)
		c.pair("https.frontProxyCertFile", s.FrontProxyCertFile, "https.frontProxyKeyFile", s.FrontProxyKeyFile)
		if s.CAFile != h.CAFile {
			c.authorities("https.caFile", s.CAFile)
		}
		c.kubeconfig(conf)
	}
	c.folder("handoverSocket", conf.HandoverSocket)
}

// authorities checks a file of certificates.
func (c *checks) authorities(field, path string) {
	if path == "" {
		return
	}
	data, err := filewatch.Read(path, filewatch.Most)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
		err = fmt.Errorf("%s has no certificate", path)
	}
	c.err(field, err)
}

// pair checks a certificate with its key. If one of two is not given, the check of the fields says so.
func (c *checks) pair(certField, cert, keyField, key string) {
	if cert == "" || key == "" {
		return
	}
	certPEM, certErr := filewatch.Read(cert, filewatch.Most)
	keyPEM, keyErr := filewatch.Read(key, filewatch.Most)
	c.err(certField, certErr)
	c.err(keyField, keyErr)
	if certErr != nil || keyErr != nil {
		return
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		c.add(certField, "%s and %s are not a certificate and its key: %s", cert, key, strings.TrimPrefix(err.Error(), "tls: "))
	}
}

// kubeconfig checks that of mode https, which is needed at the start: without it nobody knows whom to believe.
func (c *checks) kubeconfig(conf Config) {
	field := "https.kubeconfig"
	if conf.HTTPS.Kubeconfig == conf.Backends.Kubernetes.Kubeconfig {
		field = "backends.kubernetes.kubeconfig" // it was taken from there
	}
	if conf.HTTPS.Kubeconfig != "" {
		_, err := filewatch.Read(conf.HTTPS.Kubeconfig, filewatch.Most)
		c.err(field, err)
	}
}

func (c *checks) token(field, path string) {
	if path == "" {
		return
	}
	data, err := filewatch.Read(path, filewatch.Most)
	if err == nil && strings.TrimSpace(string(data)) == "" {
		err = fmt.Errorf("%s is empty", path)
	}
	c.err(field, err)
}

// folder checks that a file can be made where the path says.
func (c *checks) folder(field, path string) {
	if path == "" {
		return
	}
	info, err := os.Stat(filepath.Dir(path))
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.add(field, "the folder %s does not exist", filepath.Dir(path))
	case err == nil && !info.IsDir():
		c.add(field, "%s is not a folder", filepath.Dir(path))
	case err != nil:
		c.err(field, err)
	}
}
