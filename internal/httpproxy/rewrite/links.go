package rewrite

import "strings"

// value moves the URLs in an attribute's value, and tells whether there were any.
func (m *mover) value(element []byte, k kind, value string) (string, bool) {
	switch k {
	case several:
		return m.parts(value, nextAddress)
	case set:
		return m.parts(value, nextCandidate)
	case refresh:
		moved := m.refresh(value)
		return moved, moved != value
	}
	begin, end := trimmed(value)
	moved, ok := m.move(value[begin:end])
	if string(element) == "base" {
		m.base(value[begin:end])
	}
	if begin == 0 && end == len(value) {
		return moved, ok
	}
	return value[:begin] + moved + value[end:], ok
}

// base notes where relative URLs belong from here on. The first base counts, but one that names a host after one that names
// none is rare enough.
func (m *mover) base(value string) {
	if r := split(value); r.host != "" {
		m.foreign = !sameHost(r.host, m.RequestHost, r.scheme) && !sameHost(r.host, m.TargetHost, r.scheme)
	}
}

// parts moves each URL of a value that holds several. next returns where in a text the first URL begins and ends, and where
// the next one is to be looked for.
func (m *mover) parts(value string, next func(string) (begin, end, rest int)) (string, bool) {
	var b strings.Builder
	found := false
	whole := value
	for value != "" {
		if b.Len() > maxMoved {
			return whole, false
		}
		begin, end, rest := next(value)
		moved, ok := m.move(value[begin:end])
		b.WriteString(value[:begin])
		b.WriteString(moved)
		b.WriteString(value[end:rest])
		value, found = value[rest:], found || ok
	}
	return b.String(), found
}

// nextAddress finds a URL between spaces.
func nextAddress(s string) (begin, end, rest int) {
	begin = skip(s, 0, isSpace)
	end = skip(s, begin, isNoSpace)
	return begin, end, end
}

func isNoSpace(c byte) bool { return !isSpace(c) }

// nextCandidate finds a URL in a srcset (HTML, 4.8.4.2.1): commas at its end are none of it, and if there are none,
// descriptors follow until a comma that is not in parentheses.
func nextCandidate(s string) (begin, end, rest int) {
	begin = skip(s, 0, func(c byte) bool { return isSpace(c) || c == ',' })
	rest = skip(s, begin, isNoSpace)
	end = begin + len(strings.TrimRight(s[begin:rest], ","))
	if end < rest {
		return begin, end, rest
	}
	for depth := 0; rest < len(s) && (depth > 0 || s[rest] != ','); rest++ {
		switch s[rest] {
		case '(':
			depth = 1
		case ')':
			depth = 0
		}
	}
	return begin, end, rest
}
