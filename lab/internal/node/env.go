package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// expand replaces $(NAME) by the value of NAME as Kubernetes does in commands and values: $$ is a $, and a name without
// a value stays as it stands.
func expand(s string, value func(name string) (string, bool)) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch end := strings.IndexByte(s[i:], ')'); {
		case s[i+1] == '$':
			b.WriteByte('$')
			i++
		case s[i+1] == '(' && end > 0:
			ref := s[i : i+end+1]
			if v, ok := value(ref[2 : len(ref)-1]); ok {
				ref = v
			}
			b.WriteString(ref)
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// objects finds what a pod refers to. A missing object that is optional is an empty one.
type objects interface {
	// ConfigMap returns the data of a ConfigMap of the pod's namespace.
	ConfigMap(name string, optional *bool) (map[string][]byte, error)
	// Secret returns the data of a Secret of the pod's namespace.
	Secret(name string, optional *bool) (map[string][]byte, error)
}

// environment computes the variables of a container, from the fields of a pod (with its status) and from objects.
type environment struct {
	pod     *v1.Pod
	objects objects
	vars    map[string]string // at first those that the lab sets
}

// envOf returns the variables of a container; it changes those of e.
func envOf(c *v1.Container, e environment) (map[string]string, error) {
	for _, src := range c.EnvFrom {
		if err := e.addAll(src); err != nil {
			return nil, err
		}
	}
	for _, v := range c.Env {
		value, ok, err := e.valueOf(v)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if ok {
			e.vars[v.Name] = value
		}
	}
	return e.vars, nil
}

func (e *environment) addAll(src v1.EnvFromSource) error {
	var data map[string][]byte
	var err error
	switch {
	case src.ConfigMapRef != nil:
		data, err = e.objects.ConfigMap(src.ConfigMapRef.Name, src.ConfigMapRef.Optional)
	case src.SecretRef != nil:
		data, err = e.objects.Secret(src.SecretRef.Name, src.SecretRef.Optional)
	}
	for k, v := range data {
		e.vars[src.Prefix+k] = string(v)
	}
	return err
}

// valueOf returns the value of a variable; false if it is an optional one that has none.
func (e *environment) valueOf(v v1.EnvVar) (string, bool, error) {
	switch from := v.ValueFrom; {
	case from == nil:
		return expand(v.Value, func(n string) (string, bool) { s, ok := e.vars[n]; return s, ok }), true, nil
	case from.FieldRef != nil:
		s, err := fieldOf(e.pod, from.FieldRef.FieldPath)
		return s, true, err
	case from.ConfigMapKeyRef != nil:
		data, err := e.objects.ConfigMap(from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Optional)
		return keyOf(data, err, from.ConfigMapKeyRef.Key, from.ConfigMapKeyRef.Optional)
	case from.SecretKeyRef != nil:
		data, err := e.objects.Secret(from.SecretKeyRef.Name, from.SecretKeyRef.Optional)
		return keyOf(data, err, from.SecretKeyRef.Key, from.SecretKeyRef.Optional)
	}
	return "", false, fmt.Errorf("the lab knows fieldRef, configMapKeyRef and secretKeyRef only")
}

func keyOf(data map[string][]byte, err error, key string, optional *bool) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	v, ok := data[key]
	if !ok && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("key %q not found", key)
	}
	return string(v), ok, nil
}

// fieldOf returns a field of a pod by its path in the downward API.
func fieldOf(pod *v1.Pod, path string) (string, error) {
	if name, key, ok := strings.Cut(strings.TrimSuffix(path, "']"), "['"); ok {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	fields := map[string]func() string{
		"metadata.name":           func() string { return pod.Name },
		"metadata.namespace":      func() string { return pod.Namespace },
		"metadata.uid":            func() string { return string(pod.UID) },
		"metadata.labels":         func() string { return pairs(pod.Labels) },
		"metadata.annotations":    func() string { return pairs(pod.Annotations) },
		"spec.nodeName":           func() string { return pod.Spec.NodeName },
		"spec.serviceAccountName": func() string { return pod.Spec.ServiceAccountName },
		"status.podIP":            func() string { return pod.Status.PodIP },
		"status.hostIP":           func() string { return pod.Status.HostIP },
		"status.podIPs": func() string {
			var ips []string
			for _, ip := range pod.Status.PodIPs {
				ips = append(ips, ip.IP)
			}
			return strings.Join(ips, ",")
		},
		"status.hostIPs": func() string {
			var ips []string
			for _, ip := range pod.Status.HostIPs {
				ips = append(ips, ip.IP)
			}
			return strings.Join(ips, ",")
		},
	}
	f, ok := fields[path]
	if !ok {
		return "", fmt.Errorf("field %q is not known to the lab", path)
	}
	return f(), nil
}

// pairs writes labels as the downward API does: a line KEY="VALUE" for each, sorted.
func pairs(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(lines, "\n")
}

// withIPs returns a copy of a pod with the addresses that the agent gave it, which the API may not show yet.
func withIPs(pod *v1.Pod, podIPs, hostIPs []netip.Addr) *v1.Pod {
	pod = pod.DeepCopy()
	pod.Status.PodIPs, pod.Status.HostIPs = nil, nil
	for _, ip := range podIPs {
		pod.Status.PodIPs = append(pod.Status.PodIPs, v1.PodIP{IP: ip.String()})
	}
	for _, ip := range hostIPs {
		pod.Status.HostIPs = append(pod.Status.HostIPs, v1.HostIP{IP: ip.String()})
	}
	if len(podIPs) > 0 {
		pod.Status.PodIP = podIPs[0].String()
	}
	if len(hostIPs) > 0 {
		pod.Status.HostIP = hostIPs[0].String()
	}
	return pod
}
