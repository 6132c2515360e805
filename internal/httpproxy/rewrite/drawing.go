package rewrite

// drawing is how many elements svg and math are open around a place: 0 is HTML. That is as much of the HTML standard's "foreign
// content" (13.2.6.5) as decides where a tag ends an element that has text without markup.
type drawing int

// tag counts a tag.
func (d *drawing) tag(element string, end, slash bool) {
	switch element {
	case "svg", "math":
		if end {
			*d = max(*d-1, 0)
		} else if !slash {
			*d++
		}
	case "foreignobject": // HTML within SVG
		if end {
			*d = 1
		} else if !slash {
			*d = 0
		}
	default:
		if *d > 0 && !end && endsDrawing(element) {
			*d = 0
		}
	}
}

// endsDrawing tells whether an element is HTML's wherever it stands: whoever opens it has forgotten to close the svg.
func endsDrawing(element string) bool {
	switch element {
	case "b", "big", "blockquote", "body", "br", "center", "code", "dd", "div", "dl", "dt", "em", "embed", "h1", "h2", "h3", "h4", "h5",
		"h6", "head", "hr", "i", "img", "li", "listing", "menu", "meta", "nobr", "ol", "p", "pre", "ruby", "s", "small", "span", "strong",
		"strike", "sub", "sup", "table", "tt", "u", "ul", "var":
		return true
	}
	return false
}
