package directory

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"varco.dev/internal/apiwatch/checked"
)

// The annotations that Varco's proxies in user space read.
const (
	// AnnotationAffinity of a Service says what a client keeps its endpoint by: cookie.
	AnnotationAffinity = "varco.dev/affinity"
	// AnnotationBackendCA of a Service or Pod holds the certificates, as PEM, of the authorities that its own certificate
	// is from. With it, connections by TLS are verified.
	AnnotationBackendCA = "varco.dev/backend-ca"
	// AnnotationBackendServerName of a Service or Pod is the DNS name or IP address that its certificate must be for.
	AnnotationBackendServerName = "varco.dev/backend-server-name"
)

// affinityCookie is the one word of AnnotationAffinity.
const affinityCookie = "cookie"

// maxCA bounds the certificates of one annotation, in bytes. An annotation could be four times as long, and a bundle of
// all public authorities is.
const maxCA = 64 << 10

// cookie tells whether the word of AnnotationAffinity asks for a cookie.
func cookie(c *checked.Fields, word string) bool {
	switch strings.TrimSpace(word) {
	case "":
		return false
	case affinityCookie:
		return true
	}
	c.Problem("annotation %s: %q is not %s", AnnotationAffinity, word, affinityCookie)
	return false
}

// backendTLS reads the two annotations. If one is not valid, nothing of them is used, and the target cannot be reached by
// TLS.
func backendTLS(c *checked.Fields, annotations map[string]string) BackendTLS {
	ca, wanted := annotations[AnnotationBackendCA]
	ca = strings.TrimSpace(ca)
	name := strings.TrimSpace(annotations[AnnotationBackendServerName])
	valid := true
	if err := checkCA(ca); wanted && err != nil {
		c.Problem("annotation %s: %w", AnnotationBackendCA, err)
		valid = false
	}
	if err := checkServerName(name); err != nil {
		c.Problem("annotation %s: %w", AnnotationBackendServerName, err)
		valid = false
	}
	if !valid {
		return BackendTLS{CA: InvalidCA}
	}
	return BackendTLS{CA: checked.Shared(ca), ServerName: checked.Shared(name)}
}

// checkCA returns what is wrong with a text of certificates. An empty one is no less so than any other without them: a target
// whose owner wants it verified is not to be trusted blindly.
func checkCA(text string) error {
	if len(text) > maxCA {
		return fmt.Errorf("%d bytes are more than %d", len(text), maxCA)
	}
	found := false
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a %q, which is no certificate", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("reading a certificate: %w", err)
		}
		found = true
	}
	if !found {
		return errors.New("holds no certificate as PEM")
	}
	return nil
}

// checkServerName returns what is wrong with a name that a certificate is to be for; an empty one is right.
func checkServerName(name string) error {
	if name == "" {
		return nil
	}
	if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
		return nil
	}
	if len(validation.IsDNS1123Subdomain(strings.ToLower(name))) > 0 {
		return fmt.Errorf("%q is not a DNS name or an IP address", name)
	}
	return nil
}
