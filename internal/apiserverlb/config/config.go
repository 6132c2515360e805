package config

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// How every file begins.
const (
	APIVersion = "apiserverlb.varco.dev/v1alpha1"
	Kind       = "APIServerLBConfiguration"
)

// Config is the whole configuration. The zero value is of no use: begin with Default. Holders must not change what its
// slices hold.
type Config struct {
	metav1.TypeMeta `json:",inline"`

	Listeners []Listener `json:"listeners"`
	Backends  Backends   `json:"backends"`
	Zone      string     `json:"zone"`      // the own zone; backends of it go before others; "": none does
	Health    Health     `json:"health"`    // how backends are asked
	Timeouts  Timeouts   `json:"timeouts"`  // of connections
	Limits    Limits     `json:"limits"`    // beyond them connections are reset at once
	Rebalance Rebalance  `json:"rebalance"` // of long-lived connections
	Drain     Drain      `json:"drain"`     // the own end
	HTTPS     HTTPS      `json:"https"`     // for listeners of mode https
	Workers   int        `json:"workers"`   // event loops of mode tcp; 0: one for each CPU

	MetricsAddress string `json:"metricsAddress"` // IP address and port of /metrics, /readyz, /livez, /status; "": nowhere
	HandoverSocket string `json:"handoverSocket"` // path of the Unix socket for a successor; "": none
}

// Mode says what a listener understands of what it carries.
type Mode string

// The modes.
const (
	ModeTCP   Mode = "tcp"   // nothing: TLS goes through from end to end
	ModeHTTPS Mode = "https" // requests: TLS ends here
)

// Listener is an address that clients connect to.
type Listener struct {
	Address       string        `json:"address"` // IP address and port; ":6443": all addresses of both families
	Name          string        `json:"name"`    // in logs and metrics, and for socket activation; default: the address
	Mode          Mode          `json:"mode"`    // default: tcp
	ProxyProtocol ProxyProtocol `json:"proxyProtocol"`
	TLS           Pair          `json:"tls"` // the serving certificate of mode https
}

// ProxyProtocol says where its headers are read and written.
type ProxyProtocol struct {
	From       []string `json:"from,omitempty"` // networks: a connection from there must begin with a header, of version 1 or 2
	ToBackends bool     `json:"toBackends"`     // send a header of version 2; mode tcp only. kube-apiserver understands none
}

// Pair names the PEM files of a certificate and its key. They are read again when they change.
type Pair struct {
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
}

// Backends says where the API servers are found. The sources add up.
type Backends struct {
	Static     []Static        `json:"static,omitempty"`
	Kubernetes Kubernetes      `json:"kubernetes"`
	DNSPeriod  metav1.Duration `json:"dnsPeriod"` // between two look-ups of a name
	CacheFile  string          `json:"cacheFile"` // what was found last, for the next start; "": not kept
}

// Static is an API server that the file names. In a file a plain string is its address.
type Static struct {
	Address string `json:"address"` // host:port; a name is looked up time and again, and may have many addresses
	Zone    string `json:"zone"`
}

// Kubernetes is the cluster's own list of its API servers: the EndpointSlices of Service kubernetes.
type Kubernetes struct {
	Kubeconfig string `json:"kubeconfig"` // "": the list is not used
}

// Health says how a backend is asked for its health.
type Health struct {
	Path               string          `json:"path"`
	Interval           metav1.Duration `json:"interval"`
	Timeout            metav1.Duration `json:"timeout"` // of one answer
	Fall               int             `json:"fall"`    // failures in a row until it is down
	Rise               int             `json:"rise"`    // good answers in a row until it is up again
	CAFile             string          `json:"caFile"`
	ServerName         string          `json:"serverName"` // in the certificate; "": the backend's address
	CertFile           string          `json:"certFile"`
	KeyFile            string          `json:"keyFile"`
	TokenFile          string          `json:"tokenFile"`
	InsecureSkipVerify bool            `json:"insecureSkipVerify"`
}

// Timeouts are those of connections.
type Timeouts struct {
	Connect    metav1.Duration `json:"connect"`    // one attempt to connect to a backend
	Hello      metav1.Duration `json:"hello"`      // until the first byte of a backend that was sent a TLS hello
	Opening    metav1.Duration `json:"opening"`    // until the first byte of the client, PROXY header included
	KeepAlive  metav1.Duration `json:"keepAlive"`  // without a packet, until a backend is asked whether it is there
	User       metav1.Duration `json:"user"`       // until a peer that confirms nothing is given up (TCP_USER_TIMEOUT)
	HalfClosed metav1.Duration `json:"halfClosed"` // without a byte, after one side has ended
}

// Limits bound what is served at a time.
type Limits struct {
	Connections int `json:"connections"` // in all
	PerSource   int `json:"perSource"`   // of one IPv4 address or one IPv6 /64; 0: no limit
}

// Rebalance moves long-lived connections to backends that have fewer.
type Rebalance struct {
	Spread           int  `json:"spread"`           // percent that a backend may have more than its share
	PercentPerSecond int  `json:"percentPerSecond"` // of all its connections that are moved in a second, at most
	Disabled         bool `json:"disabled"`
}

// Drain is how the balancer itself ends.
type Drain struct {
	ShutdownDelay metav1.Duration `json:"shutdownDelay"` // with /readyz red, and still accepting
	Timeout       metav1.Duration `json:"timeout"`       // for the connections that are left then
}

// HTTPS is for listeners of mode https. A change of it, other than of the content of files, needs a restart.
type HTTPS struct {
	ClientCAFile       string          `json:"clientCAFile"` // of client certificates; "": those that the cluster publishes
	RequestHeader      RequestHeader   `json:"requestHeader"`
	Kubeconfig         string          `json:"kubeconfig"`         // reads what the cluster publishes; "": that of backends.kubernetes
	FrontProxyCertFile string          `json:"frontProxyCertFile"` // shown to API servers, which then believe who the client is
	FrontProxyKeyFile  string          `json:"frontProxyKeyFile"`
	CAFile             string          `json:"caFile"`           // of the API servers; "": that of health
	ServerName         string          `json:"serverName"`       // in their certificates; "": that of health
	GoawayChance       float64         `json:"goawayChance"`     // of a request of HTTP/2 to have its client connect again; 0 to 0.02
	MaxUpgrades        int             `json:"maxUpgrades"`      // of exec, attach and port-forward at a time; -1: none
	HeaderTimeout      metav1.Duration `json:"headerTimeout"`    // of a client: TLS handshake and header of a request
	HandshakeTimeout   metav1.Duration `json:"handshakeTimeout"` // of an API server: TLS handshake
	APIServerProxy     bool            `json:"apiserverProxy"`   // answer the proxy paths of pods, Services and nodes here
}

// RequestHeader says whom to believe that names another in headers, and which headers these are: front proxies that
// stand before this one.
type RequestHeader struct {
	CAFile              string   `json:"caFile"`                 // of their certificates; "": those that the cluster publishes
	AllowedNames        []string `json:"allowedNames,omitempty"` // common names of their certificates; none: any
	UsernameHeaders     []string `json:"usernameHeaders"`
	UIDHeaders          []string `json:"uidHeaders"`
	GroupHeaders        []string `json:"groupHeaders"`
	ExtraHeaderPrefixes []string `json:"extraHeaderPrefixes"`
}
