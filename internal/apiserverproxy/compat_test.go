package apiserverproxy_test

import (
	"flag"
	"testing"

	"varco.dev/internal/nettest/compat"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

// TestCompatibility sends the same bytes to the handler of kube-apiserver v1.37 and to ours.
func TestCompatibility(t *testing.T) { compat.Run(t, rows()) }

// TestCompatibilityTable compares the table in README.md with the rows; -update rewrites it.
func TestCompatibilityTable(t *testing.T) { compat.Readme(t, "kube-apiserver v1.37", rows(), *update) }
