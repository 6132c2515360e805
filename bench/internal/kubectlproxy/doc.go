// Package kubectlproxy measures varco kubectl-proxy beside kubectl proxy: both in front of the same server, by turns.
package kubectlproxy
