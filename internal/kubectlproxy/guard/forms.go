package guard

import (
	"path"
	"strings"
)

const (
	// maxUncleanPath bounds the work for a path that has several forms, in bytes. The longest that means something is a
	// request to an application through services/proxy.
	maxUncleanPath = 16 << 10
	maxForms       = 64 // forms of one path; those found in the wild have four
	maxDecodes     = 4  // times that a path is decoded; one is the rule, two is a mistake, more is an attack
)

// forms are the paths that a server may see in one request.
type forms struct {
	all     []string // decoded at least once; the first is what a server sees that changes nothing
	tooMany bool     // all lacks some: there are more than maxForms, or the path is too long to look for them
	climbs  bool     // one leads above the root, to where the path of the kubeconfig's server is
	doubt   bool     // all may lack some for other reasons: one climbs, or can be decoded again and again
}

// formsOf returns the forms of an escaped path.
func formsOf(escaped string) forms {
	if isPlain(escaped) {
		return forms{all: []string{escaped}}
	}
	first := unescape(escaped)
	if len(escaped) > maxUncleanPath {
		return forms{all: []string{first}, tooMany: true}
	}
	s := search{seen: map[string]bool{first: true}, out: forms{all: []string{first}}}
	s.add(escaped, 0)
	s.add(first, 1)
	for i := 0; i < len(s.queue); i++ {
		s.expand(s.queue[i])
	}
	return s.out
}

// isPlain says whether a path has one form only: no escapes, no empty segments, none that begin with a dot, nothing that
// a server could take for a slash or for the end.
func isPlain(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c <= ' ' || c >= 0x7f || c == '%' || c == '\\' || c == '?' || c == '#' || c == ';':
			return false
		case (c == '/' || c == '.') && i > 0 && p[i-1] == '/':
			return false
		}
	}
	return true
}

// search finds the forms of a path, breadth first.
type search struct {
	queue []form
	seen  map[string]bool // forms that were given out
	out   forms
}

// form is a path that was decoded some times.
type form struct {
	path    string
	decodes int
}

// add takes a form that was not there yet. One that was never decoded is seen by nobody, and only leads to others; where
// there is nothing to decode, that counts as done.
func (s *search) add(p string, decodes int) {
	if decodes == 0 && unescape(p) == p {
		decodes = 1
	}
	for _, f := range s.queue {
		if f.path == p && f.decodes <= decodes {
			return
		}
	}
	s.out.tooMany = s.out.tooMany || len(s.queue) >= maxForms
	s.out.doubt = s.out.doubt || decodes > maxDecodes
	if len(s.queue) >= maxForms || decodes > maxDecodes {
		return
	}
	s.queue = append(s.queue, form{p, decodes})
	if decodes > 0 && !s.seen[p] {
		s.seen[p] = true
		s.out.all = append(s.out.all, p)
	}
}

// expand does to a form all that servers and load balancers do to paths.
func (s *search) expand(f form) {
	if decoded := unescape(f.path); decoded != f.path {
		s.add(decoded, f.decodes+1)
	}
	if climbs(f.path) {
		s.out.climbs, s.out.doubt = true, true
	}
	s.add(clean(f.path), f.decodes)
	s.add(mergeSlashes(f.path), f.decodes)
	s.add(strings.ReplaceAll(f.path, `\`, "/"), f.decodes)
	if end := strings.IndexAny(f.path, "?#\x00"); end >= 0 {
		s.add(f.path[:end], f.decodes)
	}
}

// clean takes dot segments and empty segments out and keeps a trailing slash, as http.ServeMux does.
func clean(p string) string {
	out := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && out != "/" {
		out += "/"
	}
	return out
}

func mergeSlashes(p string) string {
	if !strings.Contains(p, "//") {
		return p
	}
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] != '/' || i == 0 || p[i-1] != '/' {
			b.WriteByte(p[i])
		}
	}
	return b.String()
}

// climbs says whether dot segments lead above the root.
func climbs(p string) bool {
	depth := 0
	for segment := range strings.SplitSeq(p, "/") {
		switch segment {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return true
		}
	}
	return false
}

// unescape decodes once. What is no escape stays as it is: a lenient server does the same.
func unescape(p string) string {
	if strings.IndexByte(p, '%') < 0 {
		return p
	}
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) && isHex(p[i+1]) && isHex(p[i+2]) {
			b.WriteByte(fromHex(p[i+1])<<4 | fromHex(p[i+2]))
			i += 2
			continue
		}
		b.WriteByte(p[i])
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func fromHex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}
