// Package health tells which API servers may be used: a pure machine turns what probes and sessions saw into verdicts, and a
// checker probes each server's readiness endpoint on a connection that it keeps.
package health
