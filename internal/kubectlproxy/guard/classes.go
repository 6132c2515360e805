package guard

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// The classes of requests that are refused unless --allow names them: each gives a shell or a tunnel to whoever reaches
// the gateway. What the kubelet offers of that kind through nodes/NAME/proxy belongs to Exec.
const (
	Exec        = "exec"
	Attach      = "attach"
	PortForward = "portforward"
)

// kubeletExec are the first segments of the kubelet's paths that run something, attach to it, or tunnel: the handlers of
// its InstallDebuggingHandlers, and cri, where runtimes put theirs up to Kubernetes 1.23.
var kubeletExec = []string{"exec", "attach", "run", "portforward", "cri"}

func closedClasses(allow []string, all bool) (map[string]bool, error) {
	closed := map[string]bool{Exec: true, Attach: true, PortForward: true}
	for _, name := range allow {
		if _, ok := closed[name]; !ok {
			return nil, fmt.Errorf("unknown class %q: the classes are %s, %s and %s", name, Exec, Attach, PortForward)
		}
		closed[name] = false
	}
	if all {
		clear(closed)
	}
	return closed, nil
}

// withoutOpened takes the expressions of opened classes out of the default list of rejected paths.
func withoutOpened(rejectPaths string, allow []string) string {
	if rejectPaths != DefaultRejectPaths {
		return rejectPaths
	}
	parts := strings.Split(rejectPaths, ",")
	parts = slices.DeleteFunc(parts, func(s string) bool {
		return slices.ContainsFunc(allow, func(class string) bool { return class != "" && strings.HasSuffix(s, "/"+class) })
	})
	return strings.Join(parts, ",")
}

func (g *Guard) judgeClass(f forms, place Place) *Refusal {
	if place == Static {
		return nil
	}
	for _, p := range f.all {
		class, what := classOf(p)
		if class != "" && g.closed[class] {
			return forbid(ruleAllow, "%s is off by default: start with --allow %s", what, class)
		}
	}
	return nil
}

// classOf returns the class of a path, "" if it is in none, and how to call the request. It looks at segments wherever
// they stand, since it cannot know what comes before the API's part of a path; letters may be in any case.
func classOf(p string) (class, what string) {
	if !mayHaveClass(p) {
		return "", ""
	}
	return findClass(p)
}

func findClass(p string) (class, what string) {
	segments := strings.Split(strings.ToLower(p), "/")
	for i, s := range segments {
		switch {
		case s == "pods" && i+2 < len(segments):
			if class = segments[i+2]; class == Exec || class == Attach || class == PortForward {
				return class, class + " of pods"
			}
		case s == "nodes" && i+2 < len(segments) && segments[i+2] == "proxy" && runsOnKubelet(segments[i+3:]),
			s == "nodes" && i > 0 && segments[i-1] == "proxy" && i+1 < len(segments) && runsOnKubelet(segments[i+2:]):
			return Exec, "running commands through a node's proxy"
		}
	}
	return "", ""
}

// mayHaveClass is false for almost every path, and never for one that has a class.
func mayHaveClass(p string) bool {
	for i := 0; i < len(p); i++ {
		if c := p[i]; 'A' <= c && c <= 'Z' || c >= 0x80 {
			p = strings.ToLower(p)
			break
		}
	}
	return strings.Contains(p, "exec") || strings.Contains(p, "attach") || strings.Contains(p, "portforward") ||
		strings.Contains(p, "nodes") && strings.Contains(p, "proxy")
}

// runsOnKubelet looks at what follows proxy. The API server cleans it by itself and keeps it below the kubelet's root
// (JoinPreservingTrailingSlash), so ../exec is /exec there.
func runsOnKubelet(tail []string) bool {
	p := path.Clean("/" + strings.Join(tail, "/"))
	first, _, _ := strings.Cut(p[1:], "/")
	return slices.Contains(kubeletExec, first)
}
