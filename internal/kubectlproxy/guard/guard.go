// Package guard decides who may ask for what through the local gateway: names of hosts against DNS rebinding, browser
// origins against hostile pages, paths and methods as kubectl proxy's flags name them, classes of requests such as exec,
// resources, a read-only mode, and a token. It only decides; it sends nothing on.
//
// Paths are kept as they were sent, so a request is judged in every form that the API server, or a load balancer before
// it, could give its path: decoded, decoded again, cleaned. One form that is refused is enough.
package guard

import (
	"fmt"
	"net/http"
	"slices"
)

// What kubectl proxy v1.37.2 uses where its flags say nothing.
const (
	DefaultAcceptHosts   = `^localhost$,^127\.0\.0\.1$,^\[::1\]$`
	DefaultAcceptPaths   = `^.*`
	DefaultRejectPaths   = `^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach`
	DefaultRejectMethods = `^$`
)

// Config is what the flags say. The lists are split at ",", and each part is a regular expression of Go that may match
// anywhere, as kubectl proxy has it. An empty list matches nothing.
type Config struct {
	AcceptPaths   string // --accept-paths
	RejectPaths   string // --reject-paths; wins over AcceptPaths
	AcceptHosts   string // --accept-hosts: the Host header without its port
	RejectMethods string // --reject-methods
	// Disabled is --disable-filter: hosts, paths, methods, origins and classes are not looked at. ReadOnly, Deny and
	// Token still hold.
	Disabled bool
	// AcceptOrigins is --accept-origins: origins such as https://console.example of pages that may change things, besides
	// the gateway's own.
	AcceptOrigins string
	// Allow is --allow: the classes that are open, by the names of Exec, Attach and PortForward. An opened class also
	// drops its part of DefaultRejectPaths, should RejectPaths be that.
	Allow []string
	// AllowAll opens all classes: the user gave a list of paths to reject, which then decides alone, as it does upstream.
	AllowAll bool
	ReadOnly bool     // --read-only
	Deny     []string // --deny: secrets, deployments.apps, pods/exec, *.rbac.authorization.k8s.io
	Token    string   // what each request must know; "" lets all in
}

// Place is what a request asks the gateway for.
type Place int

// The places. API has the paths that the API server sees; in Service a caller may give the path of services/proxy that the
// request stands for, and it is then judged by paths and resources too.
const (
	API     Place = iota // the API server
	Static               // files of --www
	Page                 // the start page
	Service              // the origin of a Service or pod; its host was checked when it was parsed
)

// Guard judges requests. It does not change after New and is safe for concurrent use.
type Guard struct {
	acceptPaths, rejectPaths, acceptHosts, rejectMethods, acceptOrigins list

	disabled bool
	readOnly bool
	closed   map[string]bool // classes that are refused
	deny     []rule
	token    string
}

// New reads the configuration. Its errors name the flag at fault.
func New(c Config) (*Guard, error) {
	g := &Guard{disabled: c.Disabled, readOnly: c.ReadOnly, token: c.Token}
	if err := g.readLists(c); err != nil {
		return nil, err
	}
	closed, err := closedClasses(c.Allow, c.AllowAll)
	if err != nil {
		return nil, fmt.Errorf("flag --allow: %w", err)
	}
	g.closed = closed
	if !tokenText.MatchString(c.Token) {
		return nil, fmt.Errorf("flag --%s: the token may have letters, digits, '-', '.', '_' and '~' only", ruleToken)
	}
	for _, s := range c.Deny {
		r, err := parseRule(s)
		if err != nil {
			return nil, fmt.Errorf("flag --deny: %w", err)
		}
		g.deny = append(g.deny, r)
	}
	return g, nil
}

func (g *Guard) readLists(c Config) error {
	for _, l := range []struct {
		flag, text string
		to         *list
	}{
		{ruleAcceptPaths, c.AcceptPaths, &g.acceptPaths},
		{ruleRejectPaths, withoutOpened(c.RejectPaths, c.Allow), &g.rejectPaths},
		{ruleAcceptHosts, c.AcceptHosts, &g.acceptHosts},
		{ruleRejectMethods, c.RejectMethods, &g.rejectMethods},
		{ruleAcceptOrigins, c.AcceptOrigins, &g.acceptOrigins},
	} {
		parsed, err := parseList(l.text)
		if err != nil {
			return fmt.Errorf("flag --%s: %w", l.flag, err)
		}
		*l.to = parsed
	}
	return nil
}

// Check says whether the request may go on: nil, or a *Refusal. apiPath is the escaped path as the API server will see
// it, without the path of the kubeconfig's server; in Static it is the path that was asked for, and only the lists of paths
// are held against it. It is not looked at in Page, and may be "" in Service, where its caller knows none. The request is
// not changed.
func (g *Guard) Check(r *http.Request, place Place, apiPath string) error {
	if refusal := g.judge(r, place, apiPath); refusal != nil {
		return refusal
	}
	return nil
}

func (g *Guard) judge(r *http.Request, place Place, apiPath string) *Refusal {
	if r.Method == http.MethodConnect {
		return forbid(ruleMethod, "CONNECT is not for this proxy: it leads to API servers and Services only")
	}
	if r.URL.Opaque != "" {
		return forbid(ruleTarget, "the request's target %q is neither a path nor a URL with a host", r.RequestURI)
	}
	if !g.disabled {
		if refusal := g.judgeSender(r, place); refusal != nil {
			return refusal
		}
	}
	if place == API && g.looksAtPaths() && hidesRequests(r) {
		return forbid(ruleUpgrade, "an upgrade to h2c would hide the requests that follow: ask without it (curl --http1.1)")
	}
	switch {
	case place == API && apiPath == "":
		apiPath = "/"
	case place == Page:
		apiPath = ""
	}
	if apiPath != "" && g.looksAtPaths() {
		if refusal := g.judgePath(r, apiPath, place); refusal != nil {
			return refusal
		}
	}
	if g.readOnly && place != API {
		return g.judgeReads(r)
	}
	return nil
}

// looksAtPaths says whether anything depends on the path.
func (g *Guard) looksAtPaths() bool { return !g.disabled || g.readOnly || len(g.deny) > 0 }

// judgeSender looks at what does not depend on the path.
func (g *Guard) judgeSender(r *http.Request, place Place) *Refusal {
	if place != Service && !g.acceptsHost(r.Host) {
		return forbid(ruleAcceptHosts, "host %q is not accepted: name it with --accept-hosts", r.Host)
	}
	if g.rejectMethods.match(r.Method) {
		return forbid(ruleRejectMethods, "method %s is rejected by --reject-methods", r.Method)
	}
	return g.judgeBrowser(r)
}

func (g *Guard) judgePath(r *http.Request, apiPath string, place Place) *Refusal {
	f := formsOf(apiPath)
	if !g.disabled {
		// Classes first: that refusal names the flag which opens them.
		if refusal := g.judgeClass(f, place); refusal != nil {
			return refusal
		}
		if refusal := g.judgeLists(f); refusal != nil {
			return refusal
		}
	}
	if place == Static {
		return nil
	}
	if len(g.deny) == 0 && (!g.readOnly || place != API) {
		return g.judgeClimb(f)
	}
	return g.judgeResource(r, f, place) // climbing is doubt there
}

// judgeClimb refuses paths that lead above the root where --reject-paths says anything: the server's own path comes before
// them, so that /../../server/path/api is /api to whoever cleans it, and no expression can know.
func (g *Guard) judgeClimb(f forms) *Refusal {
	if !g.disabled && f.climbs && len(g.rejectPaths) > 0 {
		return forbid(ruleRejectPaths, "path leads above the root, where --reject-paths cannot tell what it means")
	}
	return nil
}

// judgeLists looks at --reject-paths and --accept-paths: a path is rejected if one of its forms is, and accepted if all
// of them are.
func (g *Guard) judgeLists(f forms) *Refusal {
	if f.tooMany {
		return forbid(ruleRejectPaths, "path has too many escapes and dot segments to tell what servers make of it")
	}
	if slices.ContainsFunc(f.all, g.rejectPaths.match) {
		return forbid(ruleRejectPaths, "path is rejected by --reject-paths")
	}
	for _, p := range f.all {
		if !g.acceptPaths.match(p) {
			return forbid(ruleAcceptPaths, "path is not accepted by --accept-paths")
		}
	}
	return nil
}
