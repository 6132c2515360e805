package guard

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Where a request may carry the token.
const (
	TokenParameter = "varco-token"   // in the query: a browser's first request
	TokenHeader    = "X-Varco-Token" // for programs
	TokenPrefix    = "/token/"       // before the path, /token/TOKEN/api/…: for the server of a kubeconfig
	// TokenCookie is the name of the cookie that Token sets; a dash and the port follow where the host has one, since
	// browsers share the cookies of a host between its ports.
	TokenCookie = "varco-token"
)

// tokenText matches tokens that stand in a path, a query and a cookie as they are.
var tokenText = regexp.MustCompile(`^[A-Za-z0-9._~-]*$`)

// TakeToken lets in who knows the token, and takes it out of the request: out of path, query, cookies, headers and the
// Referer, so that no application sees it. The error is a *Refusal of code 401. next is what to go on with; r must not be
// used further, as next may share its header. If next is nil, the request was answered: with a redirect that trades the
// token of a browser's first request for a cookie, or, where a link of another site led here, with a page that asks once
// more, since browsers hold the cookie back until then. Without a token nothing is looked at and next is r.
//
// The cookie is for this host alone and never sent from other sites, but a browser sends it to servers on other ports of
// the host as well: whoever opens pages of another user's server under the same name shows it the token.
func (g *Guard) TakeToken(w http.ResponseWriter, r *http.Request) (next *http.Request, err error) {
	if g.token == "" {
		return r, nil
	}
	next, inPath := g.withoutPrefix(r)
	next, inQuery := g.withoutParameter(next)
	known := inPath || inQuery || g.inHeaders(r)
	switch {
	case !known && followsLink(r):
		leadOn(w, next)
		return nil, nil
	case !known:
		return nil, noToken()
	}
	g.cleanHeaders(next)
	if inQuery && !inPath && (r.Method == http.MethodGet || r.Method == http.MethodHead) && !mayUpgrade(r) {
		g.tradeForCookie(w, next)
		return nil, nil
	}
	return next, nil
}

func noToken() *Refusal {
	return &Refusal{Rule: ruleToken, Code: http.StatusUnauthorized, Message: "this proxy asks for its token: open the URL " +
		"that it printed at its start in a browser; programs send the token as header " + TokenHeader +
		" or before the path as " + TokenPrefix + "TOKEN/"}
}

// is compares in a time that does not depend on how much of the token is right.
func (g *Guard) is(guess string) bool {
	return subtle.ConstantTimeCompare([]byte(guess), []byte(g.token)) == 1
}

// withoutPrefix takes /token/TOKEN off the path, and says whether it was there.
func (g *Guard) withoutPrefix(r *http.Request) (*http.Request, bool) {
	escaped := r.URL.EscapedPath()
	rest, ok := strings.CutPrefix(escaped, TokenPrefix)
	if !ok {
		return r, false
	}
	guess, rest, _ := strings.Cut(rest, "/")
	rest = "/" + rest
	plain, err := url.PathUnescape(guess)
	if err != nil || !g.is(plain) {
		return r, false
	}
	path, err := url.PathUnescape(rest)
	if err != nil {
		return r, false
	}
	u := *r.URL
	u.Path, u.RawPath = path, rest
	return withURL(r, &u), true
}

// withoutParameter takes the token out of the query, and says whether the right one was there. Wrong ones go too. The
// rest of the query stays byte for byte.
func (g *Guard) withoutParameter(r *http.Request) (*http.Request, bool) {
	if r.URL.RawQuery == "" {
		return r, false
	}
	var kept []string
	known, found := false, false
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(name); err != nil || name != TokenParameter {
			kept = append(kept, part)
			continue
		}
		found = true
		value, err := url.QueryUnescape(value)
		known = known || err == nil && g.is(value)
	}
	if !found {
		return r, false
	}
	u := *r.URL
	u.RawQuery = strings.Join(kept, "&")
	return withURL(r, &u), known
}

func withURL(r *http.Request, u *url.URL) *http.Request {
	next := *r
	next.URL = u
	next.RequestURI = u.RequestURI()
	return &next
}

func (g *Guard) inHeaders(r *http.Request) bool {
	if g.is(r.Header.Get(TokenHeader)) {
		return true
	}
	for _, c := range r.CookiesNamed(cookieName(r)) {
		if g.is(c.Value) {
			return true
		}
	}
	return false
}

// cookieName is the cookie's name at the request's host.
func cookieName(r *http.Request) string {
	if port := (&url.URL{Host: r.Host}).Port(); port != "" {
		return TokenCookie + "-" + port
	}
	return TokenCookie
}

// cleanHeaders takes the token, and those of gateways on other ports, out of a request's header.
func (g *Guard) cleanHeaders(r *http.Request) {
	r.Header.Del(TokenHeader)
	cookies := r.Header["Cookie"]
	r.Header.Del("Cookie")
	for _, line := range cookies {
		if line = withoutOurs(line); line != "" {
			r.Header.Add("Cookie", line)
		}
	}
	referer := r.Header.Get("Referer")
	if decoded := unescape(referer); strings.Contains(referer, TokenParameter) || strings.Contains(decoded, g.token) {
		r.Header.Del("Referer")
	}
}

// withoutOurs takes our cookies out of a Cookie header's line; the others stay byte for byte.
func withoutOurs(line string) string {
	if !strings.Contains(line, TokenCookie) {
		return line
	}
	var kept []string
	for part := range strings.SplitSeq(line, ";") {
		name, _, _ := strings.Cut(strings.TrimSpace(part), "=")
		if name != TokenCookie && !strings.HasPrefix(name, TokenCookie+"-") {
			kept = append(kept, strings.TrimSpace(part))
		}
	}
	return strings.Join(kept, "; ")
}

// tradeForCookie sends a browser to where it wanted to go, with the token in a cookie and no longer in its address bar,
// history and Referer. A redirect does where the user came by themself. Where a link of another site led here, as from
// the start page to a Service's origin, browsers keep a SameSite=Strict cookie back on every step of the redirect: there
// a page of this origin leads on.
func (g *Guard) tradeForCookie(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: g.token, Path: "/",
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	if site := fetchSite(r); site == "cross-site" || site == "same-site" {
		leadOn(w, r)
		return
	}
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", reference(r))
	w.WriteHeader(http.StatusSeeOther)
}

// leadOn answers with an empty page that asks for the request's URL again, now from this origin.
func leadOn(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.Header().Set("Refresh", "0;url="+reference(r))
	w.WriteHeader(http.StatusOK)
}

// followsLink says whether a browser is to show what is asked for in its own tab, and a page of another site asked. What
// leadOn leads to is same-origin, so it is not led on twice.
func followsLink(r *http.Request) bool {
	site := fetchSite(r)
	return r.Method == http.MethodGet && (site == "cross-site" || site == "same-site") &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// reference is the request's URL without its host. Browsers would read a host in a path that begins with two slashes.
func reference(r *http.Request) string {
	to := r.URL.RequestURI()
	if strings.HasPrefix(to, "//") {
		to = "/." + to
	}
	return to
}
