package rewrite

// Found is an attribute that a scanner has found.
type Found struct{ Element, Value string }

// Scan reads a page in pieces of the given sizes, the last of which repeats, and appends a suffix to each value it finds; with
// an empty suffix, values stay as they are. It returns what it has passed on and found, and the most it has held.
func Scan(page []byte, suffix string, sizes ...int) (out []byte, found []Found) {
	s := scanner{edit: func(element []byte, _ kind, value string) (string, bool) {
		if value == "" {
			return "", false // the tokenizer cannot tell it from none
		}
		found = append(found, Found{string(element), value})
		return value + suffix, suffix != ""
	}}
	for i := 0; len(page) > 0; i++ {
		n := min(len(page), sizes[min(i, len(sizes)-1)])
		piece := page[:n]
		for len(piece) > 0 {
			s.out = s.out[:0]
			piece = piece[s.write(piece):]
			out = append(out, s.out...)
		}
		page = page[n:]
	}
	s.out = s.out[:0]
	s.finish()
	return append(out, s.out...), found
}

// IsWanted tells whether an attribute's value is looked at: always, or only if the element is a refresh.
func IsWanted(element, attribute string) (wanted, ifRefresh bool) {
	switch kindOf([]byte(element), []byte(attribute)) {
	case address, several, set:
		return true, false
	case refresh:
		return true, true
	}
	return false, false
}

// MaxValue is the bound of a value.
const MaxValue = maxValue
