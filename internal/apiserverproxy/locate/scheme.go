package locate

import "strings"

// scheme chooses how to speak to a port: as the URL says, else as the port's appProtocol says, else as its name says, else
// in HTTP/1.1. A URL cannot say "h2c": with "http", and without any scheme, the port decides between H2C and HTTP.
func scheme(url, appProtocol, portName string) string {
	hint := protocolScheme(appProtocol)
	if hint == "" {
		hint = nameScheme(portName)
	}
	switch {
	case url == HTTPS:
		return HTTPS
	case hint == "", url == HTTP && hint == HTTPS:
		return HTTP
	}
	return hint
}

// protocolScheme returns the scheme for an appProtocol, "" if it tells nothing.
//
// The field holds a service name of IANA, in which case does not matter (RFC 6335, section 5.1), or a name with a prefix.
// Kubernetes defines three of these (KEP-3726). Besides them this knows what is in use without being defined: Gateway API
// and Istio read "grpc" and "http2" as HTTP/2 without TLS, and "h2" is the name in ALPN of HTTP/2 over TLS (RFC 9113,
// section 3.1), which TLS negotiates anyway.
//
//	http, www, www-http, http-alt, ws, grpc-web, kubernetes.io/ws, kubernetes.io/http  -> http
//	https, wss, h2, grpcs, tls, kubernetes.io/wss, kubernetes.io/https                 -> https
//	kubernetes.io/h2c, h2c, http2, grpc, kubernetes.io/grpc                            -> h2c
//
// A WebSocket begins as a request in HTTP/1.1 (RFC 6455, section 4.1), and gRPC-Web is made for servers with no more.
func protocolScheme(appProtocol string) string {
	switch strings.TrimPrefix(strings.ToLower(appProtocol), "kubernetes.io/") {
	case "http", "www", "www-http", "http-alt", "ws", "grpc-web":
		return HTTP
	case "https", "wss", "h2", "grpcs", "tls":
		return HTTPS
	case "h2c", "http2", "grpc":
		return H2C
	}
	return ""
}

// nameScheme returns the scheme for the name of a port, "" if it tells nothing. A name may go on after a dash, as in
// "https-metrics". Names of ports are in lower case (RFC 6335, as Kubernetes validates them).
func nameScheme(port string) string {
	if port == "grpc-web" || strings.HasPrefix(port, "grpc-web-") {
		return HTTP
	}
	switch first, _, _ := strings.Cut(port, "-"); first {
	case "https":
		return HTTPS
	case "grpc", "h2c":
		return H2C
	}
	return ""
}
