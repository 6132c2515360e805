package kubeproxy

import (
	"context"

	"varco.dev/bench/internal/publish"
	"varco.dev/bench/internal/report"
)

// facts are what the reader must know of the machine and the programs.
func (o *options) facts(ctx context.Context) []report.Fact {
	out := publish.Machine()
	if o.only != peer {
		out = append(out, report.Fact{Name: varco, Value: publish.Says(ctx, o.varco, "--version")})
	}
	if o.only != varco {
		out = append(out, report.Fact{Name: peer, Value: publish.Says(ctx, o.peer, "--version")},
			report.Fact{Name: "nft", Value: publish.Says(ctx, "nft", "--version")})
	}
	return append(out, publish.Command())
}
