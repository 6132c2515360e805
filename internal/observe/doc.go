// Package observe is how a proxy shows its state: the log and the HTTP endpoints for health and metrics.
package observe
