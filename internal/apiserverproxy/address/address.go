// Package address is the URL grammar of the proxy subresources: which node, pod or Service a path names, and what is asked
// of it.
//
//	BASE/namespaces/NAMESPACE/{pods,services}/ID/proxy[/PATH]
//	BASE/nodes/ID/proxy[/PATH]
//	ID = name | name:port | scheme:name:port    scheme = "" | "http" | "https"
//
// A path is read twice in one server: here as the client wrote it, so that what follows "/proxy" reaches the target
// unchanged, and by authentication, authorization and audit (RequestInfo of k8s.io/apiserver) after its escapes are
// decoded. Both must name the same object, or a client gets at one for which it has the permission of another. So what
// could be read in two ways is an error here.
package address

// Kind is what an address names.
type Kind uint8

// The kinds.
const (
	Pod Kind = iota
	Service
	Node
)

// String returns the word in error messages: "pod", "service", "node".
func (k Kind) String() string { return [...]string{"pod", "service", "node"}[k] }

// Resource returns the name of the API resource: "pods", "services", "nodes".
func (k Kind) Resource() string { return [...]string{"pods", "services", "nodes"}[k] }

// Address is a parsed path. Its strings are parts of the path that was parsed: whoever keeps one of them for longer than
// the request keeps all of that path, unless it is cloned.
type Address struct {
	Kind       Kind
	Namespace  string // "" for nodes
	ID         string // whole and decoded, such as "https:web:443"; what RBAC calls the resource's name
	Scheme     string // "http", "https", or "" if the ID does not say
	Name, Port string
	Prefix     string // escaped, as the client sent it, up to and including "/proxy"
	Path       string // escaped rest as the client sent it: empty, or with a slash at its begin; nothing in it is cleaned
}
