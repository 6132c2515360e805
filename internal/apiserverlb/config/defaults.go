package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Default is the configuration of a file without a field, complete but for backends: these have no default.
func Default() Config {
	return Config{
		TypeMeta:  metav1.TypeMeta{APIVersion: APIVersion, Kind: Kind},
		Listeners: []Listener{{Address: "127.0.0.1:6443", Name: "127.0.0.1:6443", Mode: ModeTCP}},
		Backends:  Backends{DNSPeriod: seconds(10)},
		Health:    Health{Path: "/readyz", Interval: seconds(1), Timeout: seconds(1), Fall: 2, Rise: 2},
		Timeouts: Timeouts{
			Connect:    seconds(2), // a lost SYN is sent again after 1 s (RFC 6298)
			Hello:      seconds(1),
			Opening:    seconds(10), // as long as client-go waits for a TLS handshake
			KeepAlive:  seconds(3),
			User:       seconds(5),
			HalfClosed: seconds(300),
		},
		Limits:         Limits{Connections: 20000},
		Rebalance:      Rebalance{Spread: 20, PercentPerSecond: 1},
		Drain:          Drain{Timeout: seconds(30)},
		HTTPS:          defaultHTTPS(),
		MetricsAddress: "127.0.0.1:9444",
	}
}

// defaultHTTPS has the headers and the bounds of kube-apiserver's own defaults.
func defaultHTTPS() HTTPS {
	return HTTPS{
		RequestHeader: RequestHeader{
			UsernameHeaders:     []string{"X-Remote-User"},
			UIDHeaders:          []string{"X-Remote-Uid"},
			GroupHeaders:        []string{"X-Remote-Group"},
			ExtraHeaderPrefixes: []string{"X-Remote-Extra-"},
		},
		GoawayChance:     0.001,
		MaxUpgrades:      16384,
		HeaderTimeout:    seconds(32), // kube-apiserver's (k8s.io/apiserver/pkg/server/secure_serving.go)
		HandshakeTimeout: seconds(3),
	}
}

func seconds(n int) metav1.Duration { return metav1.Duration{Duration: time.Duration(n) * time.Second} }

// Complete fills in what has a default that depends on other fields, and on whether the element of a list is there:
// names and modes of listeners, and the files of https that are those of health unless they are given. It may be
// called again.
func (c *Config) Complete() {
	if len(c.Listeners) == 0 {
		c.Listeners = Default().Listeners
	}
	listeners := make([]Listener, len(c.Listeners)) // the given slice may be another's too
	for i, l := range c.Listeners {
		if l.Name == "" {
			l.Name = l.Address
		}
		if l.Mode == "" {
			l.Mode = ModeTCP
		}
		listeners[i] = l
	}
	c.Listeners = listeners
	orElse(&c.HTTPS.CAFile, c.Health.CAFile)
	orElse(&c.HTTPS.ServerName, c.Health.ServerName)
	orElse(&c.HTTPS.Kubeconfig, c.Backends.Kubernetes.Kubeconfig)
}

func orElse(field *string, value string) {
	if *field == "" {
		*field = value
	}
}
