package identity

import (
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Headers are the names of the fields that carry an identity: those of kube-apiserver's --requestheader-username-headers,
// -uid-headers, -group-headers and -extra-headers-prefix. Names have no case (RFC 9110, 5.1). Of several names the first is
// written, and all are removed.
type Headers struct {
	Users, UIDs, Groups, ExtraPrefixes []string
}

// Default returns the names that every API server knows.
func Default() Headers {
	return Headers{
		Users: []string{"X-Remote-User"}, UIDs: []string{"X-Remote-Uid"}, Groups: []string{"X-Remote-Group"},
		ExtraPrefixes: []string{"X-Remote-Extra-"},
	}
}

// Strip removes every field that could be taken for an identity: these and the default ones, in any case, and with
// underscores in place of hyphens, which gateways of CGI's kind (RFC 3875, 4.1.18) do not tell apart. Impersonate-… stays:
// it is a wish, which the API server grants or not.
func (h Headers) Strip(header http.Header) {
	for key := range header {
		if h.Has(key) {
			delete(header, key)
		}
	}
}

// Has says whether Strip removes a field of this name.
func (h Headers) Has(key string) bool { return standard(key) || h.names(key) }

// standard is Has of Default, without a list to go through.
func standard(key string) bool {
	rest, ok := cutPrefix(key, "x-remote-")
	if !ok {
		return false
	}
	_, extra := cutPrefix(rest, "extra-")
	return extra || equal(rest, "user") || equal(rest, "uid") || equal(rest, "group")
}

func (h Headers) names(key string) bool {
	for _, list := range [...][]string{h.Users, h.UIDs, h.Groups} {
		for _, name := range list {
			if equal(key, name) {
				return true
			}
		}
	}
	for _, prefix := range h.ExtraPrefixes {
		if _, ok := cutPrefix(key, prefix); ok {
			return true
		}
	}
	return false
}

// Set writes an identity in place of whatever the header says of one. It fails where HTTP would change the identity on the
// way, and has removed what was there then. A part that the API server has no name for is left out: UIDs, before 1.32.
func (h Headers) Set(header http.Header, u user.Info) error {
	h.Strip(header)
	if len(h.Users) == 0 {
		return fmt.Errorf("carry the identity of a client: the API server accepts no header for the user's name")
	}
	if err := check(u); err != nil {
		return fmt.Errorf("carry the identity of a client: %w", err)
	}
	set(header, h.Users, u.GetName())
	if uid := u.GetUID(); uid != "" {
		set(header, h.UIDs, uid)
	}
	if groups := u.GetGroups(); len(groups) > 0 {
		set(header, h.Groups, groups...)
	}
	if len(h.ExtraPrefixes) > 0 {
		for key, values := range u.GetExtra() {
			name := http.CanonicalHeaderKey(h.ExtraPrefixes[0] + escape(key))
			header[name] = append(header[name], values...)
		}
	}
	return nil
}

func set(header http.Header, names []string, values ...string) {
	if len(names) > 0 {
		header[http.CanonicalHeaderKey(names[0])] = values
	}
}

// check refuses what would arrive as something else: recipients trim white space around a value (RFC 9110, 5.5), with which
// the group " system:masters" would become one that can do everything.
func check(u user.Info) error {
	if u.GetName() == "" {
		return fmt.Errorf("it has no name")
	}
	if err := exact("name", u.GetName()); err != nil {
		return err
	}
	if err := exact("UID", u.GetUID()); err != nil {
		return err
	}
	for _, group := range u.GetGroups() {
		if err := exact("group", group); err != nil {
			return err
		}
	}
	for key, values := range u.GetExtra() {
		for _, value := range values {
			if err := exact("extra "+key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func exact(what, value string) error {
	if strings.Trim(value, " \t") != value || !httpguts.ValidHeaderFieldValue(value) {
		return fmt.Errorf("a header cannot say its %s exactly: %q", what, value)
	}
	return nil
}

// escape writes a key of extra as a part of a field's name. Kubernetes reads the name in lower case and then undoes percent
// escapes (headerrequest), so that what is no token (RFC 9110, 5.6.2) is escaped, and capitals too.
func escape(key string) string {
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if c != '%' && httpguts.IsTokenRune(rune(c)) && (c < 'A' || 'Z' < c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func equal(a, b string) bool {
	rest, ok := cutPrefix(a, b)
	return ok && rest == ""
}

// cutPrefix is strings.CutPrefix for names of fields, for which neither case nor underscores matter.
func cutPrefix(name, prefix string) (string, bool) {
	if len(name) < len(prefix) {
		return "", false
	}
	for i := range len(prefix) {
		if fold(name[i]) != fold(prefix[i]) {
			return "", false
		}
	}
	return name[len(prefix):], true
}

func fold(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_':
		return '-'
	}
	return c
}
