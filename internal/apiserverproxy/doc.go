// Package apiserverproxy serves the proxy subresources of pods, Services and nodes, in the place of kube-apiserver's own:
// with its URLs, permissions and answers, and with balancing, retries, streaming and a guard of the addresses dialled.
package apiserverproxy
