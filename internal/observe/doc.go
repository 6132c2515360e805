// Package observe is how a proxy shows its state: the log, the HTTP endpoints for health and metrics, and the pages that
// every component of Kubernetes has.
package observe
