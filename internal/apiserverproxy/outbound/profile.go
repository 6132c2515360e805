// Package outbound makes the connections to targets. Its dialer looks at the very address that is dialled, so that no name
// and no race leads to a place that clients must not reach; its transports know no proxies from the environment.
package outbound

// Profile is a way to speak to targets. It is comparable: equal profiles share connections.
type Profile struct {
	Scheme     string // "http", "https" or "h2c"
	Kubelet    bool   // with the kubelet's client certificate and certificate authority
	CA         string // PEM; empty: that of Config counts
	ServerName string // in TLS; empty: that of the address
}
