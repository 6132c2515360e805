package checked

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Affinity returns for how long a client keeps its backend, 0 where it does not. Kubernetes bounds the time to a day.
func (c *Fields) Affinity(s *corev1.Service) time.Duration {
	switch s.Spec.SessionAffinity {
	case "", corev1.ServiceAffinityNone:
		return 0
	case corev1.ServiceAffinityClientIP:
	default:
		c.Problem("spec.sessionAffinity: %q is not None or ClientIP", s.Spec.SessionAffinity)
		return 0
	}
	seconds := int32(corev1.DefaultClientIPServiceAffinitySeconds)
	if conf := s.Spec.SessionAffinityConfig; conf != nil && conf.ClientIP != nil {
		seconds = Deref(conf.ClientIP.TimeoutSeconds, seconds)
	}
	if day := int32(24 * time.Hour / time.Second); seconds < 1 || seconds > day {
		c.Problem("spec.sessionAffinityConfig.clientIP.timeoutSeconds: %d is not between 1 and %d", seconds, day)
		seconds = corev1.DefaultClientIPServiceAffinitySeconds
	}
	return time.Duration(seconds) * time.Second
}
