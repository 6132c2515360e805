package rewrite

import "bytes"

// name is a name in small letters. One that is longer than maxName is none that means anything.
type name struct {
	b [maxName]byte
	n int
}

// text returns the name, or nothing if it was too long.
func (n *name) text() []byte {
	if n.n > maxName {
		return nil
	}
	return n.b[:n.n]
}

func (n *name) add(b []byte) {
	for _, c := range b {
		if n.n >= maxName {
			n.n = maxName + 1
			return
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		n.b[n.n] = c
		n.n++
	}
}

// tag is the tag that a scanner is in.
type tag struct {
	end       bool
	element   name
	attribute name
	seen      []name // attributes with values for us; a second of the same name does not count
	quote     byte   // of the value; 0: none
	kind      kind   // of the value
	isRefresh bool   // http-equiv=refresh has been seen
	slash     bool   // a slash was right before
}

func (t *tag) begin(end bool) {
	t.end, t.element.n, t.seen, t.isRefresh, t.slash = end, 0, t.seen[:0], false, false
}

// inTag reads on in a tag.
func (s *scanner) inTag() {
	c := s.in[s.i]
	switch s.state {
	case stateTagName:
		if s.readName(&s.tag.element, false) {
			s.state = stateBeforeAttribute
		}
	case stateBeforeAttribute:
		s.beforeAttribute(c)
	case stateAttribute:
		if s.readName(&s.tag.attribute, true) {
			s.attributeSeen()
			s.state = stateAfterAttribute
		}
	case stateAfterAttribute:
		s.afterAttribute(c)
	case stateBeforeValue:
		s.beforeValue(c)
	case stateValue:
		s.inValue()
	}
}

// readName reads a name, and tells whether it has ended.
func (s *scanner) readName(n *name, equals bool) bool {
	from := s.i
	for s.i < len(s.in) {
		if c := s.in[s.i]; isSpace(c) || c == '/' || c == '>' || equals && c == '=' {
			n.add(s.in[from:s.i])
			return true
		}
		s.i++
	}
	n.add(s.in[from:s.i])
	return false
}

func (s *scanner) beforeAttribute(c byte) {
	switch {
	case c == '>':
		s.tagEnd()
	case isSpace(c), c == '/':
		s.tag.slash = c == '/'
		s.i++
	default:
		s.tag.slash = false
		s.tag.attribute.n = 0
		if c == '=' { // HTML, 13.2.5.32: the name begins with it
			s.tag.attribute.add(s.in[s.i : s.i+1])
			s.i++
		}
		s.state = stateAttribute
	}
}

func (s *scanner) afterAttribute(c byte) {
	switch {
	case isSpace(c):
		s.i++
	case c == '=':
		s.next(stateBeforeValue)
	default:
		s.state = stateBeforeAttribute
	}
}

func (s *scanner) beforeValue(c byte) {
	switch {
	case isSpace(c):
		s.i++
		return
	case c == '>':
		s.state = stateBeforeAttribute
		return
	case c == '"', c == '\'':
		s.tag.quote = c
		s.i++
	default:
		s.tag.quote = 0
	}
	s.state = stateValue
	if s.tag.kind != other {
		s.holdValue()
	}
}

// inValue reads a value.
func (s *scanner) inValue() {
	if q := s.tag.quote; q != 0 {
		if s.until(q) {
			s.valueEnd()
			s.next(stateBeforeAttribute)
		}
		return
	}
	for ; s.i < len(s.in); s.i++ {
		if c := s.in[s.i]; c == '>' || isSpace(c) {
			s.valueEnd()
			s.state = stateBeforeAttribute
			return
		}
	}
}

// attributeSeen finds out what the value of an attribute would be, if it has one.
func (s *scanner) attributeSeen() {
	t := &s.tag
	t.kind = other
	if t.end {
		return
	}
	k := kindOf(t.element.text(), t.attribute.text())
	if k == other {
		return
	}
	for i := range t.seen {
		if bytes.Equal(t.seen[i].text(), t.attribute.text()) {
			return
		}
	}
	t.seen = append(t.seen, t.attribute)
	t.kind = k
}

// tagEnd ends a tag at its >. Several elements have text without markup, slash at the end or not; but in SVG and MathML a slash
// ends an element, and a script, style or title as well.
func (s *scanner) tagEnd() {
	s.metaEnd()
	s.next(stateText)
	e := string(s.tag.element.text())
	s.drawing.tag(e, s.tag.end, s.tag.slash)
	if s.tag.end || s.tag.slash && s.drawing > 0 {
		return
	}
	switch e {
	case "script":
		s.raw, s.script, s.state = e, scriptData, stateScript
	case "iframe", "noembed", "noframes", "noscript", "style", "textarea", "title", "xmp":
		s.raw, s.state = e, stateRaw
	case "plaintext":
		s.state = stateOff // until the end of the page
	}
}
