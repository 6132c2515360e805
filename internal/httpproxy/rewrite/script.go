package rewrite

// scriptState is where in a script a scanner stands: the "script data" states of the HTML standard (13.2.5.15 to 31). They are
// there because <!-- hides an end tag that is within another <script> in it.
type scriptState uint8

const (
	scriptData scriptState = iota
	scriptLess
	scriptEnd // behind </
	scriptEscapeStart
	scriptEscapeStartDash
	scriptEscaped // behind <!--
	scriptEscapedDash
	scriptEscapedDashDash
	scriptEscapedLess
	scriptEscapedEnd
	scriptDoubleStart // in a name behind < in a comment
	scriptDouble      // behind <!--<script>
	scriptDoubleDash
	scriptDoubleDashDash
	scriptDoubleLess
	scriptDoubleEnd
)

// inScript reads on in a script.
func (s *scanner) inScript() {
	if s.script == scriptData {
		if s.until('<') {
			s.i++
			s.script = scriptLess
		}
		return
	}
	c := s.in[s.i]
	switch s.script {
	case scriptLess:
		if c == '!' {
			s.scriptIf(true, scriptEscapeStart, scriptData)
		} else {
			s.scriptIf(c == '/', scriptEnd, scriptData)
		}
	case scriptEscapeStart:
		s.scriptIf(c == '-', scriptEscapeStartDash, scriptData)
	case scriptEscapeStartDash:
		s.scriptIf(c == '-', scriptEscapedDashDash, scriptData)
	case scriptEscapedLess:
		if isLetter(c) {
			s.matched, s.script = 0, scriptDoubleStart
		} else {
			s.scriptIf(c == '/', scriptEscapedEnd, scriptEscaped)
		}
	case scriptDoubleLess:
		s.scriptIf(c == '/', scriptDoubleEnd, scriptDouble)
	case scriptEnd, scriptEscapedEnd, scriptDoubleStart, scriptDoubleEnd:
		s.scriptName(c)
	default:
		s.scriptHidden(c)
	}
}

// scriptIf takes a byte and changes to one state, or leaves the byte to the other.
func (s *scanner) scriptIf(yes bool, to, otherwise scriptState) {
	s.matched, s.script = 0, either(yes, to, otherwise)
	if yes {
		s.i++
	}
}

// scriptName reads a name that may be "script": an end tag, or the begin or end of what hides one.
func (s *scanner) scriptName(c byte) {
	m := s.match(c)
	switch {
	case m == matchMore:
		s.i++
		return
	case m == matchYes && (s.script == scriptEnd || s.script == scriptEscapedEnd):
		s.tag.begin(true)
		s.state = stateTagName
		return
	case m == matchYes:
		s.i++
	}
	yes := m == matchYes
	switch s.script {
	case scriptEnd:
		s.script = scriptData
	case scriptEscapedEnd:
		s.script = scriptEscaped
	case scriptDoubleStart:
		s.script = either(yes, scriptDouble, scriptEscaped)
	case scriptDoubleEnd:
		s.script = either(yes, scriptEscaped, scriptDouble)
	}
}

func either(yes bool, a, b scriptState) scriptState {
	if yes {
		return a
	}
	return b
}

// scriptHidden reads in <!--, and counts the dashes that may end it.
func (s *scanner) scriptHidden(c byte) {
	s.i++
	base := either(s.script >= scriptDouble, scriptDouble, scriptEscaped)
	dashes := s.script - base // none, one, two or more
	switch {
	case c == '-':
		s.script = base + min(dashes+1, 2)
	case c == '<':
		s.script = base + (scriptEscapedLess - scriptEscaped)
	case c == '>' && dashes == 2:
		s.script = scriptData
	default:
		s.script = base
	}
}
