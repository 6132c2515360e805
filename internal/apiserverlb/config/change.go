package config

import (
	"errors"
	"os"
	"reflect"
)

// Restart names the fields that differ and cannot change while the balancer runs: what they say counts from the next
// start on. It is nil if there is none.
func Restart(old, new Config) []string {
	var out []string
	for _, f := range []struct {
		name     string
		old, new any
	}{
		{"https", old.HTTPS, new.HTTPS},
		{"workers", old.Workers, new.Workers},
		{"metricsAddress", old.MetricsAddress, new.MetricsAddress},
		{"handoverSocket", old.HandoverSocket, new.HandoverSocket},
	} {
		if !reflect.DeepEqual(f.old, f.new) {
			out = append(out, f.name)
		}
	}
	return out
}

// Warnings says what is allowed and probably not as it was meant, for the log.
func (c Config) Warnings() []string {
	var out []string
	path := c.Backends.Kubernetes.Kubeconfig
	if _, err := os.Stat(path); path != "" && errors.Is(err, os.ErrNotExist) {
		out = append(out, "backends.kubernetes.kubeconfig: "+path+" does not exist yet: it is looked for again")
	}
	if c.Health.InsecureSkipVerify {
		out = append(out, "health.insecureSkipVerify: certificates are not checked: whoever answers counts as an API server")
	}
	return out
}
