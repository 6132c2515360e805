package rewrite

import (
	"strings"

	"golang.org/x/net/html"
)

// hold is what a scanner holds back: a value, and in a meta element the rest of the tag until it is known what the value is.
type hold struct {
	on      bool
	b       []byte
	begin   int  // where the value that is being read begins in b
	pending int  // how long the first value is if what it is depends on the rest of the tag; -1: it does not
	quote   byte // of that one
}

// holdValue begins to hold a value, unless all of the tag is held already.
func (s *scanner) holdValue() {
	s.take()
	if !s.hold.on {
		s.hold = hold{on: true, b: s.hold.b[:0], pending: -1}
	}
	s.hold.begin = len(s.hold.b)
}

// release passes on what is held, as it is.
func (s *scanner) release() {
	s.out = append(s.out, s.hold.b...)
	s.hold.on, s.hold.b = false, s.hold.b[:0]
}

// valueEnd decides about a value that has ended before s.i.
func (s *scanner) valueEnd() {
	if s.tag.kind == other {
		return
	}
	if s.take(); !s.hold.on {
		return // it was too long
	}
	h, t := &s.hold, &s.tag
	switch {
	case t.kind == equiv:
		t.isRefresh = strings.EqualFold(decoded(h.b[h.begin:], t.quote), "refresh")
		if h.pending < 0 {
			s.release()
		}
	case t.kind == refresh && !t.isRefresh:
		h.pending, h.quote = len(h.b), t.quote
	default:
		s.change(len(h.b), t.quote)
	}
}

// metaEnd decides about the content of a meta element when its tag ends.
func (s *scanner) metaEnd() {
	if !s.hold.on {
		return
	}
	s.tag.kind = refresh
	if s.take(); !s.hold.on {
		return
	}
	if s.tag.isRefresh {
		s.change(s.hold.pending, s.hold.quote)
	} else {
		s.release()
	}
}

// change passes on what is held, of which the first n bytes are a value, with its URLs moved. A value without quotes gets
// some: URLs may hold what would end it.
func (s *scanner) change(n int, quote byte) {
	h := &s.hold
	moved, ok := s.edit(s.tag.element.text(), s.tag.kind, decoded(h.b[:n], quote))
	if !ok {
		s.release()
		return
	}
	if quote == 0 {
		s.out = append(s.out, '"')
	}
	s.out = appendEscaped(s.out, moved)
	if quote == 0 {
		s.out = append(s.out, '"')
	}
	s.out = append(s.out, h.b[n:]...)
	h.on, h.b = false, h.b[:0]
}

// decoded returns a value without its character references. In attributes these have rules of their own (&copy=1 is none), so
// that a tag around the value is given to who knows all of them.
func decoded(raw []byte, quote byte) string {
	s := string(raw)
	if strings.IndexByte(s, '\r') < 0 && strings.IndexByte(s, 0) < 0 {
		const amp = "&amp;" // most are
		if strings.Count(s, "&") == strings.Count(s, amp) {
			return strings.ReplaceAll(s, amp, "&")
		}
	}
	q := ""
	if quote != 0 {
		q = string(rune(quote))
	}
	z := html.NewTokenizer(strings.NewReader("<a b=" + q + s + q + ">"))
	z.Next()
	_, _ = z.TagName()
	_, v, _ := z.TagAttr()
	return string(v)
}

// appendEscaped appends a text as it may stand in quotes, as html.EscapeString writes it.
func appendEscaped(out []byte, s string) []byte {
	from := 0
	for i := range len(s) {
		var e string
		switch s[i] {
		case '&':
			e = "&amp;"
		case '<':
			e = "&lt;"
		case '>':
			e = "&gt;"
		case '"':
			e = "&#34;"
		case '\'':
			e = "&#39;"
		default:
			continue
		}
		out = append(append(out, s[from:i]...), e...)
		from = i + 1
	}
	return append(out, s[from:]...)
}
