package cli

import "testing"

// TestCalledAs has kubectl run the program as a plugin.
func TestCalledAs(t *testing.T) {
	for program, want := range map[string]string{
		"varco": "varco", "/usr/bin/varco": "varco", "./varco-1.0": "varco",
		"/usr/bin/kubectl-varco": "kubectl varco", "kubectl-varco.exe": "kubectl varco",
	} {
		if got := calledAs(program); got != want {
			t.Errorf("%s calls itself %q, want %q", program, got, want)
		}
	}
}
