// Package identity carries who a client is in the headers of an authenticating proxy (Kubernetes' --requestheader-…).
package identity
