package rewrite

import "bytes"

const (
	// maxName is more than any name has that means something here: "lineargradient", "imagesrcset".
	maxName = 16
	// maxValue is how many bytes an attribute's value may have to be moved; longer ones pass as they are. Servers take URLs
	// of 8 KiB, and a srcset has a dozen of them.
	maxValue = 64 << 10
	// maxMoved is about how long a value of several URLs may become by being moved: each grows by the prefix, and 64 KiB have
	// room for 32,000. One that would become longer passes as it is.
	maxMoved = 2 * maxValue
	// maxOut is about where a scanner stops to take input until its output has gone. Output can be longer than input: each
	// link grows by the prefix.
	maxOut = 64 << 10
)

// state is where a scanner stands in a page. The names follow the HTML standard's (13.2.5).
type state uint8

const (
	stateStart state = iota // nothing has come yet
	stateOff                // all that comes passes
	stateText
	stateTagOpen    // behind <
	stateEndTagOpen // behind </
	stateMarkup     // behind <!
	stateMarkupDash // behind <!-
	stateComment
	stateBogus // a comment that ends with the first >: <!DOCTYPE html>, <?xml?>, </3>
	stateTagName
	stateBeforeAttribute
	stateAttribute // in its name
	stateAfterAttribute
	stateBeforeValue
	stateValue
	stateRaw     // text of an element in which there is no markup
	stateRawLess // behind < in it
	stateRawEnd  // behind </ in it
	stateScript
)

// scanner finds the attributes of a page that are URLs, and passes all other bytes on as they are. It takes a page in any
// pieces, and holds nothing of it back but an attribute's value, and for meta elements what follows it in the tag.
//
// It reads as golang.org/x/net/html's tokenizer does, which it replaces because that one holds whole tokens: a script or a
// text can be all of a page.
type scanner struct {
	// edit returns the new value of an attribute, or false if it stays. The element's name is in small letters.
	edit func(element []byte, k kind, value string) (string, bool)
	out  []byte // what is to be passed on, for the owner to take

	in   []byte // what is being read
	i    int    // up to here it has been read
	from int    // from here on it has been read but not taken

	state   state
	comment comment
	script  scriptState
	matched int    // bytes that agree with raw in a name
	raw     string // the element whose text is read

	tag     tag
	drawing drawing
	hold    hold
}

// write takes as much of a page as there is room for in out, and returns how much that was.
func (s *scanner) write(in []byte) int {
	s.in, s.i, s.from = in, 0, 0
	for s.i < len(in) && len(s.out) < maxOut {
		s.step() // takes bytes, or changes the state and leaves them to the new one
	}
	s.take()
	s.in = nil
	return s.i
}

// finish ends a page. A tag that it ends in is none, so that what is held of it passes as it is.
func (s *scanner) finish() { s.release() }

// take passes on, or holds, what has been read.
func (s *scanner) take() {
	b := s.in[s.from:s.i]
	s.from = s.i
	if s.hold.on && len(s.hold.b)+len(b) <= maxValue {
		s.hold.b = append(s.hold.b, b...)
		return
	}
	s.release()
	s.out = append(s.out, b...)
}

// step reads on in one state.
func (s *scanner) step() {
	switch s.state {
	case stateStart:
		s.start()
	case stateOff:
		s.i = len(s.in)
	case stateText:
		if s.until('<') {
			s.next(stateTagOpen)
		}
	case stateTagOpen:
		s.tagOpen(s.in[s.i])
	case stateEndTagOpen:
		s.endTagOpen(s.in[s.i])
	case stateMarkup:
		s.expect('-', stateMarkupDash, stateBogus)
	case stateMarkupDash:
		s.comment = comment{}
		s.expect('-', stateComment, stateBogus)
	case stateComment:
		s.inComment()
	case stateBogus:
		if s.until('>') {
			s.next(stateText)
		}
	case stateRaw:
		if s.until('<') {
			s.next(stateRawLess)
		}
	case stateRawLess:
		s.matched = 0
		s.expect('/', stateRawEnd, stateRaw)
	case stateRawEnd:
		s.rawEnd(s.in[s.i])
	case stateScript:
		s.inScript()
	default:
		s.inTag()
	}
}

// next takes a byte and changes the state.
func (s *scanner) next(to state) {
	s.i++
	s.state = to
}

// expect takes a byte if it is c, and leaves any other to the state that follows then.
func (s *scanner) expect(c byte, yes, no state) {
	if s.in[s.i] == c {
		s.next(yes)
	} else {
		s.state = no
	}
}

// until reads up to a byte, and tells whether it is there.
func (s *scanner) until(c byte) bool {
	n := bytes.IndexByte(s.in[s.i:], c)
	if n < 0 {
		s.i = len(s.in)
		return false
	}
	s.i += n
	return true
}

// start looks at the first byte. 0, 0xFE and 0xFF begin pages in UTF-16 and UTF-32 (byte order marks, or half a letter),
// in which nothing here would be what it seems; in all else they begin none.
func (s *scanner) start() {
	switch s.in[s.i] {
	case 0, 0xFE, 0xFF:
		s.state = stateOff
	default:
		s.state = stateText
	}
}

func (s *scanner) tagOpen(c byte) {
	switch {
	case isLetter(c):
		s.tag.begin(false)
		s.state = stateTagName
	case c == '/':
		s.next(stateEndTagOpen)
	case c == '!':
		s.next(stateMarkup)
	case c == '?':
		s.next(stateBogus)
	default:
		s.state = stateText
	}
}

func (s *scanner) endTagOpen(c byte) {
	if isLetter(c) {
		s.tag.begin(true)
		s.state = stateTagName
	} else {
		s.state = stateBogus // </> ends at once
	}
}

// rawEnd reads what may be the end tag of the element whose text is read.
func (s *scanner) rawEnd(c byte) {
	switch s.match(c) {
	case matchMore:
		s.i++
	case matchYes:
		s.tag.begin(true)
		s.state = stateTagName
	case matchNo:
		s.state = stateRaw
	}
}

type match uint8

const (
	matchMore match = iota // so far
	matchYes               // the name was complete before this byte
	matchNo
)

// match compares a name with raw, byte by byte; it ends before the byte that ends the name.
func (s *scanner) match(c byte) match {
	switch {
	case s.matched < len(s.raw) && c|0x20 == s.raw[s.matched]:
		s.matched++
		return matchMore
	case s.matched == len(s.raw) && (isSpace(c) || c == '/' || c == '>'):
		return matchYes
	}
	return matchNo
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// comment is where in a comment a scanner stands.
type comment struct {
	dashes int  // in a row
	begun  bool // it has more than dashes; before that, > ends it too
	bang   bool // it had --! right before
}

// inComment reads on in a comment, which ends with -->, --!>, or at once with > or ->.
func (s *scanner) inComment() {
	c := &s.comment
	for s.i < len(s.in) {
		if c.begun && c.dashes == 0 && !c.bang && !s.until('-') {
			return
		}
		b := s.in[s.i]
		s.i++
		switch {
		case b == '>' && (c.bang || c.dashes >= 2 || !c.begun):
			s.state = stateText
			return
		case b == '-' && c.bang:
			*c = comment{dashes: 1, begun: true}
		case b == '-':
			c.dashes++
		default:
			*c = comment{begun: true, bang: b == '!' && c.dashes >= 2 && !c.bang}
		}
	}
}
