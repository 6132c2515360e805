// Package cluster turns the contexts of a kubeconfig into API servers that requests can be handed to: which server, over
// which transport, with whose credentials. client-go knows how to read a kubeconfig and how to keep tokens, certificates
// and authorities fresh; what is here chooses its transports, follows edits of the kubeconfig while the proxy runs, and
// asks once more when the API server refuses a credential that has been renewed since.
//
// Each cluster has three transports with the same credentials: HTTP/1.1 with many idle connections for ordinary
// requests, HTTP/2 for watches and followed logs, and HTTP/1.1 with its own keepalive for upgrades.
//
// What client-go does by itself stays as it is there: a token file is read again after 50 seconds, files of client
// certificates are looked at for each new connection and every 5 minutes (a new one closes the connections of ordinary
// requests and watches), and a file of authorities every 5 minutes. A refused credential has the first two read at once.
package cluster

import (
	_ "k8s.io/client-go/plugin/pkg/client/auth" // registers the auth-provider oidc, and says what became of azure and gcp
)
