package guard

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// list is a list of regular expressions as kubectl proxy's flags have them.
type list []pattern

// pattern is a regular expression with what can be said of it without running it: the default lists cost some
// microseconds a request otherwise.
type pattern struct {
	re     *regexp.Regexp
	always bool     // it matches every text
	whole  bool     // it matches literals[0] and nothing else
	needs  []string // texts that it matches contain all of these
}

// parseList splits at every ",", inside braces too: that is what the flags of kubectl proxy do.
func parseList(text string) (list, error) {
	if text == "" {
		return nil, nil
	}
	var out list
	for _, part := range strings.Split(text, ",") {
		re, err := regexp.Compile(part)
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", part, err)
		}
		out = append(out, newPattern(re))
	}
	return out, nil
}

func (l list) match(text string) bool {
	for i := range l {
		if l[i].match(text) {
			return true
		}
	}
	return false
}

func newPattern(re *regexp.Regexp) pattern {
	p := pattern{re: re}
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return p
	}
	tree = tree.Simplify()
	p.always = alwaysMatches(tree)
	p.whole = isWhole(tree)
	p.needs = literals(tree)
	return p
}

func (p *pattern) match(text string) bool {
	if p.always {
		return true
	}
	if p.whole {
		return text == p.needs[0]
	}
	for _, s := range p.needs {
		if !strings.Contains(text, s) {
			return false
		}
	}
	return p.re.MatchString(text)
}

// alwaysMatches finds expressions such as ^.* that match the empty text at the start of every text.
func alwaysMatches(tree *syntax.Regexp) bool {
	switch tree.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpStar, syntax.OpQuest:
		return true
	case syntax.OpConcat:
		for _, sub := range tree.Sub {
			if !alwaysMatches(sub) {
				return false
			}
		}
		return true
	}
	return false
}

// isWhole finds expressions such as ^localhost$.
func isWhole(tree *syntax.Regexp) bool {
	return tree.Op == syntax.OpConcat && len(tree.Sub) == 3 && tree.Sub[0].Op == syntax.OpBeginText &&
		isLiteral(tree.Sub[1]) && tree.Sub[2].Op == syntax.OpEndText
}

// literals returns texts without which the expression cannot match.
func literals(tree *syntax.Regexp) []string {
	if isLiteral(tree) {
		return []string{string(tree.Rune)}
	}
	if tree.Op != syntax.OpConcat {
		return nil
	}
	var out []string
	for _, sub := range tree.Sub {
		if isLiteral(sub) {
			out = append(out, string(sub.Rune))
		}
	}
	return out
}

// isLiteral says whether the expression is a text of ASCII letters, in their case. Other texts are left to the regular
// expression: it takes bytes that are no UTF-8 for the replacement character.
func isLiteral(tree *syntax.Regexp) bool {
	if tree.Op != syntax.OpLiteral || tree.Flags&syntax.FoldCase != 0 {
		return false
	}
	for _, r := range tree.Rune {
		if r >= 0x80 {
			return false
		}
	}
	return true
}
