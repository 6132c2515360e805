package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// addrValue is a flag of an IP address. Empty leaves the default, as upstream.
type addrValue struct{ to *string }

func (v addrValue) String() string { return deref(v.to) }
func (v addrValue) Type() string   { return "ip" }

func (v addrValue) Set(s string) error {
	if _, ok := parseAddr(s); !ok && s != "" {
		return fmt.Errorf("%q is not an IP address", s)
	}
	if s != "" {
		*v.to = s
	}
	return nil
}

// addrPortValue is a flag of an IP address with a port, or without: then the usual one is added. Empty means nowhere.
type addrPortValue struct{ to *string }

func (v addrPortValue) String() string { return deref(v.to) }
func (v addrPortValue) Type() string   { return "ipport" }

func (v addrPortValue) Set(s string) error {
	_, isAddr := parseAddr(s)
	_, isPair := parseAddrPort(s)
	if !isAddr && !isPair && s != "" {
		return fmt.Errorf("%q is not an IP address and port such as 0.0.0.0:10256", s)
	}
	*v.to = s
	return nil
}

func deref(p *string) string {
	if p == nil { // pflag asks zero values for their text
		return ""
	}
	return *p
}

// gatesValue is a flag of A=true,B=false. Given several times, the flags add up.
type gatesValue struct{ to *map[string]bool }

func (v gatesValue) Type() string { return "mapStringBool" }

func (v gatesValue) String() string {
	if v.to == nil {
		return ""
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(*v.to)) {
		pairs = append(pairs, fmt.Sprintf("%s=%t", name, (*v.to)[name]))
	}
	return strings.Join(pairs, ",")
}

func (v gatesValue) Set(s string) error {
	for pair := range strings.SplitSeq(s, ",") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		on, err := strconv.ParseBool(strings.TrimSpace(value))
		if !ok || err != nil {
			return fmt.Errorf("%q is not a gate such as LoggingAlphaOptions=true", pair)
		}
		(*v.to)[strings.TrimSpace(name)] = on
	}
	return nil
}

// versionValue is true, false, raw, or as upstream a version to report, which is forgotten here.
type versionValue struct{ to *string }

func (v versionValue) String() string   { return deref(v.to) }
func (v versionValue) Type() string     { return "version" }
func (v versionValue) IsBoolFlag() bool { return true }

func (v versionValue) Set(s string) error {
	if s == "raw" {
		*v.to = s
		return nil
	}
	if strings.HasPrefix(s, "v") {
		return nil
	}
	on, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%q is none of true, false, raw", s)
	}
	*v.to = strconv.FormatBool(on)
	return nil
}

// parseTaint reads KEY[=VALUE][:EFFECT], as kubectl taint writes it. Empty is the zero Taint.
func parseTaint(s string) (Taint, error) {
	if s == "" {
		return Taint{}, nil
	}
	var t Taint
	rest, effect, hasEffect := strings.Cut(s, ":")
	t.Effect = effect
	t.Key, t.Value, _ = strings.Cut(rest, "=")
	if errs := validation.IsQualifiedName(t.Key); len(errs) > 0 {
		return Taint{}, fmt.Errorf("%q is not a key of a taint such as example.com/not-ready", t.Key)
	}
	if errs := validation.IsValidLabelValue(t.Value); len(errs) > 0 {
		return Taint{}, fmt.Errorf("%q is not a value of a taint: it has other characters than letters, digits, '-', '_' and '.', or too many", t.Value)
	}
	if !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) && hasEffect {
		return Taint{}, fmt.Errorf("%q is none of NoSchedule, PreferNoSchedule, NoExecute", effect)
	}
	return t, nil
}
