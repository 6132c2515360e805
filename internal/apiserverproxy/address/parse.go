package address

import (
	"fmt"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
)

// Parse reads an escaped path (url.URL.EscapedPath) below a base such as "/api/v1" or "/apis/proxy.varco.dev/v1".
//
// ok is false if it is no path of a proxy subresource: somebody else's. If it is one, but a wrong one, err is a
// BadRequest of the API, and the address holds what could be read, so that the caller can still tell a client that has
// no permission from one that made a mistake: RequestInfo names the same object, if any.
//
// The words of the grammar must be written without escapes, and no name may have an escaped slash in it or be empty, "."
// or "..": the decoded path would have other segments. In an ID and in a namespace any other character may be escaped.
func Parse(base, escapedPath string) (a Address, ok bool, err error) {
	a, ok = cut(base, escapedPath)
	if !ok {
		return hidden(base, escapedPath)
	}
	if err := a.decode(); err != nil {
		return a, true, err
	}
	return a, true, a.split()
}

// hidden answers for a path that is not of the grammar as it is written. It is not let through to others if its decoded
// form is: kube-apiserver itself routes by the decoded form, so that a client would get past what is asked for here with
// a "%2F" or a "prox%79".
func hidden(base, escapedPath string) (Address, bool, error) {
	if strings.IndexByte(escapedPath, '%') < 0 {
		return Address{}, false, nil
	}
	decoded, err := url.PathUnescape(escapedPath)
	if err != nil {
		return Address{}, false, nil
	}
	a, ok := cut(base, decoded)
	if !ok {
		return Address{}, false, nil
	}
	a.Prefix, a.Path = "", "" // they are not as the client sent them
	_ = a.split()             // the error below counts, whatever the ID is
	return a, true, apierrors.NewBadRequest(
		fmt.Sprintf("invalid %s request: escaped characters before the end of %q", a.Kind, "/proxy"))
}

// cut finds the parts of a path of the grammar. Namespace and ID are as they are written; the ID is not looked into.
func cut(base, path string) (a Address, ok bool) {
	rest, ok := after(path, base)
	if !ok {
		return a, false
	}
	word, rest := segment(rest)
	switch word {
	case "nodes":
		a.Kind = Node
	case "namespaces":
		a.Namespace, rest = segment(rest)
		word, rest = segment(rest)
		if a.Kind, ok = namespaced(word); !ok {
			return a, false
		}
	default:
		return a, false
	}
	a.ID, rest = segment(rest)
	word, a.Path = segment(rest)
	a.Prefix = path[:len(path)-len(a.Path)]
	return a, word == "proxy"
}

// namespaced returns the kind of a namespaced resource.
func namespaced(resource string) (Kind, bool) {
	switch resource {
	case "pods":
		return Pod, true
	case "services":
		return Service, true
	}
	return 0, false
}

// after returns what follows a base: empty, or with a slash at its begin.
func after(path, base string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, base)
	return rest, ok && strings.HasPrefix(rest, "/")
}

// segment takes the first segment off a path that is empty or has a slash at its begin, and so has the rest.
func segment(path string) (first, rest string) {
	if path == "" {
		return "", ""
	}
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[1 : 1+i], path[1+i:]
	}
	return path[1:], ""
}

// decode decodes namespace and ID. An empty segment must not pass: RequestInfo takes an empty name for a list of all.
func (a *Address) decode() (err error) {
	if a.ID, err = decode("name", a.ID); err != nil || a.Kind == Node {
		return err
	}
	if a.Namespace, err = decode("namespace", a.Namespace); err != nil {
		return err
	}
	return valid("Namespace", a.Namespace)
}

func decode(what, escaped string) (string, error) {
	s, err := url.PathUnescape(escaped)
	switch {
	case err != nil:
		return escaped, apierrors.NewBadRequest(fmt.Sprintf("invalid %s %q in the path: %v", what, escaped, err))
	case s == "":
		return "", apierrors.NewBadRequest(what + " must be provided") // apiserver/pkg/endpoints/handlers/namer.go
	case s == ".", s == "..", strings.Contains(s, "/"):
		return s, apierrors.NewBadRequest(fmt.Sprintf("invalid %s %q in the path", what, s))
	}
	return s, nil
}

// split takes the ID apart. It reads it as apimachinery/pkg/util/net.SplitSchemeNamePort does, which allocates.
func (a *Address) split() error {
	scheme, name, port, ok := splitID(a.ID)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid %s request %q", a.Kind, a.ID))
	}
	a.Scheme, a.Name, a.Port = scheme, name, port
	return valid("Name", name)
}

func splitID(id string) (scheme, name, port string, ok bool) {
	first, rest, colon := strings.Cut(id, ":")
	second, third, two := strings.Cut(rest, ":")
	switch {
	case !colon:
		name = first
	case !two:
		name, port = first, second
	default:
		scheme, name, port = first, second, third
	}
	if name == "" || strings.Contains(port, ":") || scheme != "" && scheme != "http" && scheme != "https" {
		return "", "", "", false
	}
	return scheme, name, port, true
}

// valid refuses names that no object can have, in upstream's words (NamespaceKeyFunc in
// apiserver/pkg/registry/generic/registry/store.go). A name with a "%" would also be decoded once more on its way.
func valid(what, name string) error {
	if wrong := content.IsPathSegmentName(name); len(wrong) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("%s parameter invalid: %q: %s", what, name, strings.Join(wrong, ";")))
	}
	return nil
}
