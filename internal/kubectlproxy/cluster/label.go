package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

const (
	maxLabel  = 63 // RFC 1035, section 2.3.4
	hashDigit = 6  // of a label whose spelling alone would not tell contexts apart
)

// labels gives each context a DNS label: its name in lower case, with "-" in place of other characters. Names that are
// labels already keep their spelling. Others that would meet, or that are cut, get a few digits of the hash of their
// name. The result depends on the set of names only.
func labels(names []string) map[string]string {
	names = slices.Sorted(slices.Values(names))
	out, taken, same := make(map[string]string, len(names)), map[string]bool{}, map[string]int{}
	for _, name := range names {
		l, whole := spell(name)
		if l == name && whole {
			out[name], taken[l] = l, true
		}
		same[l]++
	}
	for _, name := range names {
		if out[name] != "" {
			continue
		}
		l, whole := spell(name)
		if !whole || same[l] > 1 || taken[l] {
			l = hashed(l, name, taken)
		}
		out[name], taken[l] = l, true
	}
	return out
}

// spell returns the label that is closest to the name, and whether nothing of the name was cut off.
func spell(name string) (label string, whole bool) {
	l := strings.Trim(strings.Map(letter, name), "-")
	switch {
	case strings.HasPrefix(l, "xn--"): // the mark of RFC 5890, section 2.3.1: browsers would decode it, and fail
		l = "x-" + l
	case l == "svc", l == "pod": // words of these host names themselves
		l = "context-" + l
	}
	if l == "" {
		return "context", false
	}
	if len(l) > maxLabel {
		return strings.TrimRight(l[:maxLabel], "-"), false
	}
	return l, true
}

func letter(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-':
		return r
	case 'A' <= r && r <= 'Z':
		return r - 'A' + 'a'
	}
	return '-'
}

// hashed returns a free label that begins as the given one and ends in a hash of the name.
func hashed(label, name string, taken map[string]bool) string {
	sum := sha256.Sum256([]byte(name))
	for digits := hashDigit; ; digits++ {
		end := "-" + hex.EncodeToString(sum[:])[:digits]
		l := strings.TrimRight(label[:min(len(label), maxLabel-len(end))], "-") + end
		if !taken[l] {
			return l
		}
	}
}
