package config

import (
	"errors"
	"os"
	"reflect"
)

// Restart names the fields that differ and cannot change while the balancer runs: what they say counts from the next
// start on. It is nil if there is none. What mode https goes by is left out where no listener is of that mode.
func Restart(old, new Config) []string {
	type field struct {
		name     string
		old, new any
	}
	fields := []field{
		{"workers", old.Workers, new.Workers},
		{"metricsAddress", old.MetricsAddress, new.MetricsAddress},
		{"handoverSocket", old.HandoverSocket, new.HandoverSocket},
	}
	if old.usesHTTPS() {
		fields = append(fields,
			field{"https", old.HTTPS, new.HTTPS},
			field{"timeouts", old.Timeouts, new.Timeouts},
			field{"health.insecureSkipVerify", old.Health.InsecureSkipVerify, new.Health.InsecureSkipVerify})
	}
	var out []string
	for _, f := range fields {
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
