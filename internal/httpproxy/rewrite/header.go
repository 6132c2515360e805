package rewrite

import (
	"net/http"
	"strings"
)

// header moves the URLs of the fields that hold some.
func (m *mover) header(h http.Header) {
	m.each(h, "Content-Location", m.whole)
	m.each(h, "Service-Worker-Allowed", m.scope)
	m.each(h, "Sourcemap", m.whole)
	m.each(h, "Refresh", m.refresh)
	m.each(h, "Link", m.links)
}

// each replaces each value of a field. Values may be shared with others, so that they are not changed in place.
func (m *mover) each(h http.Header, name string, f func(string) string) {
	old := h[name]
	if len(old) == 0 {
		return
	}
	values := make([]string, len(old))
	for i, v := range old {
		values[i] = f(v)
	}
	h[name] = values
}

// whole moves a value that is a URL, with space around it.
func (m *mover) whole(value string) string {
	begin, end := trimmed(value)
	if moved, ok := m.move(value[begin:end]); ok {
		return value[:begin] + moved + value[end:]
	}
	return value
}

// scope moves a Service-Worker-Allowed. It bounds which pages a worker may control, all those of the host if it climbs high
// enough, so that it is read as browsers read URLs (backslashes are slashes, tabs are nothing) and ends below the prefix always.
func (m *mover) scope(value string) string {
	v := strings.NewReplacer("\\", "/", "\t", "").Replace(strings.Trim(value, " \t"))
	if r := split(v); r.origin == "" && !strings.HasPrefix(v, "/") {
		folder := m.RequestPath[:strings.LastIndexByte(m.RequestPath, '/')+1]
		v = "/" + strings.TrimPrefix(folder, "/") + v
	}
	if moved, ok := m.move(v); ok {
		return moved
	}
	return m.Prefix + "/"
}

// trimmed returns where a value begins and ends without white space, as HTML has it.
func trimmed(s string) (begin, end int) {
	for end = len(s); begin < end && isSpace(s[begin]); begin++ {
	}
	for ; begin < end && isSpace(s[end-1]); end-- {
	}
	return begin, end
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' }

// refresh moves the URL of a Refresh field, or of a meta element that stands for one: "5; url=/x" (HTML, 4.2.5.3, "shared
// declarative refresh steps").
func (m *mover) refresh(value string) string {
	begin, end := refreshURL(value)
	if moved, ok := m.move(value[begin:end]); ok {
		return value[:begin] + moved + value[end:]
	}
	return value
}

// refreshURL returns where the URL of a refresh stands; nowhere (0, 0) if there is none.
func refreshURL(s string) (begin, end int) {
	i := skip(s, 0, isSpace)
	number := skip(s, i, func(c byte) bool { return '0' <= c && c <= '9' || c == '.' })
	if number == i {
		return 0, 0
	}
	i = skip(s, number, isSpace)
	if i < len(s) && (s[i] == ';' || s[i] == ',') {
		i = skip(s, i+1, isSpace)
	} else if i == number {
		return 0, 0
	}
	if len(s)-i >= 3 && strings.EqualFold(s[i:i+3], "url") {
		if j := skip(s, i+3, isSpace); j < len(s) && s[j] == '=' {
			i = skip(s, j+1, isSpace)
		}
	}
	if i < len(s) && (s[i] == '"' || s[i] == '\'') {
		begin = i + 1
		if n := strings.IndexByte(s[begin:], s[i]); n >= 0 {
			return begin, begin + n
		}
		return begin, len(s)
	}
	_, n := trimmed(s[i:])
	return i, i + n
}

func skip(s string, i int, f func(byte) bool) int {
	for i < len(s) && f(s[i]) {
		i++
	}
	return i
}

// links moves the targets of a Link field (RFC 8288, 3): <uri>; rel="next", <uri>. Its parameters stay, anchor too, which
// says what the link is about and is followed by nobody.
func (m *mover) links(value string) string {
	var b strings.Builder
	from := 0
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '"': // a parameter in quotes
			for i++; i < len(value) && value[i] != '"'; i++ {
				if value[i] == '\\' {
					i++
				}
			}
		case '<':
			n := strings.IndexByte(value[i:], '>')
			if n < 0 {
				i = len(value)
				continue
			}
			b.WriteString(value[from : i+1])
			b.WriteString(m.whole(value[i+1 : i+n]))
			from, i = i+n, i+n
		}
	}
	return b.String() + value[from:]
}
