package directory

import (
	"sync"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// nodes keeps Nodes. Their names have no namespace.
type nodes struct {
	mu     sync.RWMutex
	byName map[service.Name]*Node
}

func newNodes() *nodes { return &nodes{byName: map[service.Name]*Node{}} }

func (n *nodes) get(name service.Name) *Node {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byName[name]
}

func (n *nodes) set(name service.Name, v *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.byName[name]; old == nil || !old.equal(v) {
		n.byName[name] = v
	}
}

func (n *nodes) del(name service.Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byName, name)
}

func (n *nodes) replace(all []feed.Item[*Node]) {
	fresh := make(map[service.Name]*Node, len(all))
	for _, i := range all {
		fresh[i.Name] = i.Value
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.byName = fresh
}
