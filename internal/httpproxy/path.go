package httpproxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WithPath returns a shallow copy of a request that asks for another path, which is escaped and begins with a slash. What it
// escapes stays escaped, and it is not cleaned: %2F, // and .. are sent as they are. An error is a Status of code 400.
func WithPath(r *http.Request, escaped string) (*http.Request, error) {
	path, err := url.PathUnescape(escaped)
	if err != nil || !strings.HasPrefix(path, "/") {
		return nil, Status(http.StatusBadRequest, metav1.StatusReasonBadRequest,
			fmt.Sprintf("the path %q cannot be asked for: it must begin with / and each %% must be followed by two hexadecimal digits", escaped))
	}
	out, u := *r, *r.URL
	u.Path, u.RawPath = path, escaped
	KeepEscapes(&u)
	out.URL = &u
	return &out, nil
}

// KeepEscapes has a URL send its RawPath, and return it as EscapedPath. Package url ignores a RawPath that holds bytes which
// RFC 3986 does not allow, and with it that a slash was escaped; escaping those bytes too says the same in allowed ones.
func KeepEscapes(u *url.URL) {
	if strings.IndexByte(u.RawPath, '%') < 0 || u.EscapedPath() == u.RawPath {
		return // there is nothing to lose
	}
	var b strings.Builder
	for i := range len(u.RawPath) {
		if c := u.RawPath[i]; allowedInPath(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	u.RawPath = b.String()
}

// allowedInPath is pchar of RFC 3986 and the slash, with the brackets that package url lets through.
func allowedInPath(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@%/[]", c) >= 0
}
