package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The gates that change something here.
const (
	gateExternalIPs  = "AllowServiceExternalIPs"
	gateLoggingAlpha = "LoggingAlphaOptions"
	gateAllAlpha     = "AllAlpha"
)

// gate is a feature gate that kube-proxy 1.37 reads.
type gate struct {
	name    string
	initial bool   // upstream's default
	always  bool   // what holds here, whatever is asked for
	effect  string // "" : the gate works as upstream's
}

// gates are those that upstream's kube-proxy reads on Linux, in the order of their names.
func gates() []gate {
	return []gate{
		{gateAllAlpha, false, false, ""},
		{"AllBeta", false, true, "nothing here is beta"},
		{gateExternalIPs, true, true, ""},
		{"ComponentFlagz", true, true, ""},
		{"ComponentStatusz", true, true, ""},
		{"ContextualLogging", true, true, "messages always have their context"},
		{"KubeProxyIPVS", true, true, "mode ipvs is always accepted, and its options have no effect"},
		{"KubeProxyNFTablesLocalhostNodePorts", false, true, "nodePortAddresses alone decides about localhost"},
		{gateLoggingAlpha, false, false, ""},
		{"LoggingBetaOptions", true, true, "the format json is always accepted"},
		{"MultiCIDRServiceAllocator", true, true, "ServiceCIDRs are always watched"},
		{"NFTablesNetlink", true, true, "nftables are always spoken to over netlink"},
		{"NFTablesProxyMode", true, true, "the rules are always nftables"},
		{"NativeHistograms", false, false, "histograms always have fixed buckets"},
		{"PreferSameTrafficDistribution", true, true, "hints are always followed"},
	}
}

// Gate says whether a feature gate is on: as it was asked for, or else upstream's default. Unknown gates are off.
func (c Config) Gate(name string) bool { return gateOn(c.FeatureGates, name) }

func gateOn(asked map[string]bool, name string) bool {
	on, given := asked[name]
	if given {
		return on
	}
	if name == gateLoggingAlpha {
		return asked[gateAllAlpha]
	}
	i := slices.IndexFunc(gates(), func(g gate) bool { return g.name == name })
	return i >= 0 && gates()[i].initial
}

// gateUsage lists the gates for --help.
func gateUsage() string {
	var names []string
	for _, g := range gates() {
		if g.effect == "" {
			names = append(names, fmt.Sprintf("%s=%t", g.name, g.initial))
		}
	}
	return "feature gates as name=true or name=false; those with a meaning here, with their defaults, are " +
		strings.Join(names, ", ")
}

// gateNotes reports the gates that are unknown, or that ask for what is not so.
func gateNotes(asked map[string]bool) (out []Note) {
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		i := slices.IndexFunc(gates(), func(g gate) bool { return g.name == name })
		switch {
		case i < 0:
			unknown = append(unknown, name)
		case gates()[i].effect != "" && gates()[i].always != asked[name]:
			out = append(out, Note{Warning: true, Text: fmt.Sprintf("feature gate %s=%t has no effect: %s", name, asked[name], gates()[i].effect)})
		}
	}
	if len(unknown) > 0 {
		out = append(out, Note{Warning: true, Text: "these feature gates are not kube-proxy's, and have no effect: " + strings.Join(unknown, ", ")})
	}
	return out
}
