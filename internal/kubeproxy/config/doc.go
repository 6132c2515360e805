// Package config reads the configuration that kube-proxy's users have: its flags and its KubeProxyConfiguration. It
// gives it out as a [Config], checked and with addresses as netip, and tells when the file says something new.
//
// Names, types, defaults and precedence are those of Kubernetes 1.37 (cmd/kube-proxy/app and pkg/proxy/apis/config).
// What has no meaning for this proxy is accepted, and reported once.
package config
