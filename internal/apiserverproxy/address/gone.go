package address

// Gone reads the paths that Kubernetes had before the proxy subresources: the verbs "proxy" and "redirect", removed in
// Kubernetes 1.10 (kubernetes#59884).
//
//	/api/v1/{proxy,redirect}/namespaces/NAMESPACE/{pods,services}/ID[/PATH]
//	/api/v1/{proxy,redirect}/nodes/ID[/PATH]
//
// It returns today's path for the same, escaped as the client sent it. For a redirect, which sent the client to the
// address itself, that is the nearest there is. ok is false for any other path, and for one whose names cannot be
// written in today's grammar.
func Gone(escapedPath string) (today string, ok bool) {
	const base = "/api/v1"
	rest, ok := after(escapedPath, base)
	if !ok {
		return "", false
	}
	verb, rest := segment(rest)
	if verb != "proxy" && verb != "redirect" {
		return "", false
	}
	object, path, ok := object(rest)
	if !ok {
		return "", false
	}
	today = base + object + "/proxy" + path
	_, ok, err := Parse(base, today)
	return today, ok && err == nil
}

// object cuts a path behind the name of the object: "/nodes/ID" or "/namespaces/NAMESPACE/RESOURCE/ID".
func object(path string) (object, rest string, ok bool) {
	word, rest := segment(path)
	switch word {
	case "nodes":
	case "namespaces":
		_, rest = segment(rest) // the namespace
		_, rest = segment(rest) // the resource
	default:
		return "", "", false
	}
	_, rest = segment(rest)
	return path[:len(path)-len(rest)], rest, true
}
