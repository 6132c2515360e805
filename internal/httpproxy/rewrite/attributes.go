package rewrite

// kind says what an attribute's value is.
type kind uint8

const (
	other   kind = iota // not for us
	address             // one URL
	several             // URLs with space between them
	set                 // URLs, each with descriptors: "/a.png 2x, /b.png"
	refresh             // "5; url=/x", if the element says so in another attribute:
	equiv               // "refresh"
)

// kindOf says what the value of an element's attribute is. Both names are in small letters.
func kindOf(element, attribute []byte) kind {
	if upstream(element, attribute) {
		return address
	}
	switch string(attribute) {
	case "href", "xlink:href": // SVG; in HTML they mean nothing there
		switch string(element) {
		case "a", "feimage", "image", "lineargradient", "mpath", "pattern", "radialgradient", "script", "textpath", "use":
			return address
		}
	case "src":
		if string(element) == "track" {
			return address
		}
	case "background":
		switch string(element) {
		case "table", "td", "th", "tr":
			return address
		}
	case "ping":
		switch string(element) {
		case "a", "area":
			return several
		}
	case "srcset":
		switch string(element) {
		case "img", "source":
			return set
		}
	case "imagesrcset":
		if string(element) == "link" {
			return set
		}
	case "content":
		if string(element) == "meta" {
			return refresh
		}
	case "http-equiv":
		if string(element) == "meta" {
			return equiv
		}
	}
	return other
}

// upstream are the pairs that Kubernetes has (k8s.io/apimachinery/pkg/util/proxy, atomsToAttrs): 35 of 25 elements.
func upstream(element, attribute []byte) bool {
	a := string(attribute)
	switch string(element) {
	case "a", "area", "base", "link":
		return a == "href"
	case "applet":
		return a == "codebase"
	case "audio", "embed", "script", "source":
		return a == "src"
	case "blockquote", "del", "ins", "q":
		return a == "cite"
	case "body":
		return a == "background"
	case "button":
		return a == "formaction"
	case "command":
		return a == "icon"
	case "form":
		return a == "action"
	case "frame", "iframe":
		return a == "longdesc" || a == "src"
	case "head":
		return a == "profile"
	case "html":
		return a == "manifest"
	case "img":
		return a == "longdesc" || a == "src" || a == "usemap"
	case "input":
		return a == "src" || a == "usemap" || a == "formaction"
	case "object":
		return a == "classid" || a == "codebase" || a == "data" || a == "usemap"
	case "video":
		return a == "poster" || a == "src"
	}
	return false
}
