package vouch

// Words are what users call the settings, for errors.
type Words struct {
	ClientCA     string // authorities of clients
	ProxyCA      string // authorities of front proxies
	AllowedNames string // names of front proxies
	FrontProxy   string // the front-proxy certificate of this server
	Serving      string // the certificate that this server shows, and its key
	ServingNamed string // further ones
}

// Flags returns the words of servers that are built on k8s.io/apiserver: names of flags.
func Flags() Words {
	return Words{
		ClientCA: "--client-ca-file", ProxyCA: "--requestheader-client-ca-file", AllowedNames: "--requestheader-allowed-names",
		FrontProxy: "--proxy-client-cert-file", Serving: "--tls-cert-file and --tls-private-key-file", ServingNamed: "--tls-sni-cert-key",
	}
}
