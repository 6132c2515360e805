package demo

import (
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
)

// printTable prints the outcomes in aligned columns, and below them what is wrong; it returns how many of them are.
func printTable(out io.Writer, outcomes []outcome, from places) (wrong int, err error) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\tTO\tADDRESS\tPROTOCOL\tEXPECTED\tSEEN")
	var problems []string
	for _, o := range outcomes {
		name := from[o.from].name
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", name, o.kind, addresses(o.to), o.protocol, o.want, o.seen())
		found := o.problems()
		for _, p := range found {
			problems = append(problems, fmt.Sprintf("%s to %s (%s) %s", name, o.kind, o.protocol, p))
		}
		if len(found) > 0 {
			wrong++
		}
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	for _, p := range problems {
		fmt.Fprintln(out, "✗", p)
	}
	return wrong, nil
}

// addresses writes the first one, and how many there are beside it of its family and whether of IPv6: all of them are too
// long for a table.
func addresses(to []netip.AddrPort) string {
	text, more, six := to[0].String(), 0, ""
	for _, a := range to[1:] {
		if a.Addr().Is4() {
			more++
		} else {
			six = " +IPv6"
		}
	}
	if more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text + six
}
