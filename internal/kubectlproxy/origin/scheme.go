package origin

import "strings"

// protocol is what an app speaks on a port.
type protocol int

const (
	plainHTTP protocol = iota // HTTP/1.1
	overTLS                   // HTTP/1.1 or HTTP/2, as the app chooses in the handshake
	plainH2                   // HTTP/2 without TLS, known beforehand
)

// protocolOf finds out what a Service's port speaks: by its appProtocol, else by its name, else by its numbers. The
// appProtocols are those of KEP-3726, and what Istio, GKE and Envoy Gateway understand besides.
func protocolOf(appProtocol, name string, numbers ...int) protocol {
	for _, word := range []string{appProtocol, name} {
		if p, ok := protocolByWord(strings.ToLower(word)); ok {
			return p
		}
	}
	for _, n := range numbers {
		if n == 443 || n == 8443 {
			return overTLS
		}
	}
	return plainHTTP
}

// protocolByWord reads a word, or the part of a port's name before its first hyphen (https-metrics).
func protocolByWord(word string) (protocol, bool) {
	word = strings.TrimPrefix(word, "kubernetes.io/")
	if word == "grpc-web" || strings.HasPrefix(word, "grpc-web-") {
		return plainHTTP, true // gRPC in the clothes of HTTP/1.1
	}
	word, _, _ = strings.Cut(word, "-")
	switch word {
	case "https", "wss", "tls", "ssl", "grpcs":
		return overTLS, true
	case "h2c", "http2", "grpc":
		return plainH2, true
	case "http", "ws":
		return plainHTTP, true
	}
	return 0, false
}

// scheme is the scheme of URLs of the protocol.
func (p protocol) scheme() string {
	if p == overTLS {
		return "https"
	}
	return "http"
}
