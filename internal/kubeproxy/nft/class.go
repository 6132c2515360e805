package nft

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"varco.dev/internal/service"
)

// Path is the way a connection takes to its backend: it decides the masquerading, and which map tells the id.
type Path uint8

// The paths.
const (
	PathCluster          Path = iota + 1 // to a ClusterIP
	PathExternal                         // to a LoadBalancer or external IP: masqueraded
	PathNodePort                         // to a NodePort: masqueraded
	PathExternalLocal                    // to a LoadBalancer or external IP with policy Local
	PathNodePortLocal                    // to a NodePort with policy Local
	PathExternalShortcut                 // the same two from this node, which go where policy Cluster would send them
	PathNodePortShortcut
	numPaths
)

// String returns the word for the path in the names of chains.
func (p Path) String() string {
	return [...]string{"", "cluster", "external", "nodeport", "external-local", "nodeport-local", "external-shortcut", "nodeport-shortcut"}[p]
}

// set is the map that leads to the path, and tells the id of the Service port.
func (p Path) set() Set {
	return [...]Set{
		PathCluster: Services, PathExternal: Services, PathNodePort: NodePorts,
		PathExternalLocal: Services, PathNodePortLocal: NodePorts,
		PathExternalShortcut: Shortcuts, PathNodePortShortcut: NodePortShortcuts,
	}[p]
}

// Class is what a frontend has in common with all others that are handled by the same chain: its path, its protocol, and
// how a backend is chosen. The number of backends is part of it because nftables draws random numbers below a constant
// only, and the affinity because the kernel takes the timeout of an element from the rule.
//
// Frontends point to a class and not to a chain: the kernel validates the whole table again whenever a verdict is added
// to a map, and a class is not a verdict. So that cost grows with the number of distinct classes, not of Services.
type Class struct {
	Path     Path
	Protocol service.Protocol
	Backends int             // slots, at most MaxBackends; 0 where only shortcuts lead to backends; 1 for Maglev, whose slots are always as many
	Affinity uint32          // seconds, at most MaxAffinity; 0: none
	Balance  service.Balance // how a slot is chosen
}

// MaxBackends is the highest number of slots of a set of backends, but for Maglev.
const MaxBackends = 1<<16 - 1

// MaxAffinity is the longest session affinity, in seconds. Kubernetes allows a day.
const MaxAffinity = 1<<balanceShift - 1

const balanceShift = 30

// words returns the class as the kernel has it, in two registers.
func (c Class) words() (class, arg uint32) {
	return uint32(c.Path)<<24 | uint32(c.Protocol)<<16 | uint32(c.Backends), uint32(c.Balance)<<balanceShift | c.Affinity
}

// classOf is the inverse of words.
func classOf(class, arg uint32) Class {
	return Class{
		Path: Path(class >> 24), Protocol: service.Protocol(class >> 16), Backends: int(class & MaxBackends),
		Affinity: arg & MaxAffinity, Balance: service.Balance(arg >> balanceShift),
	}
}

// Compare orders classes.
func (c Class) Compare(d Class) int {
	class, arg := c.words()
	class2, arg2 := d.words()
	return cmp.Or(cmp.Compare(class, class2), cmp.Compare(arg, arg2))
}

// String returns the name of the chain of the class, such as "cluster-tcp-3" or "cluster-tcp-3-affinity-10800".
func (c Class) String() string {
	if c.Path == 0 || c.Path >= numPaths || c.Balance > service.HashSourceIP {
		class, arg := c.words()
		return fmt.Sprintf("invalid-%x-%x", class, arg)
	}
	s := fmt.Sprintf("%s-%s-%d", c.Path, c.Protocol, c.Backends)
	if c.Balance == service.Maglev {
		s = fmt.Sprintf("%s-%s", c.Path, c.Protocol)
	}
	if c.Balance != service.Random {
		s += "-" + c.Balance.String()
	}
	if c.Affinity > 0 {
		s += fmt.Sprintf("-affinity-%d", c.Affinity)
	}
	return s
}

// parseClass is the inverse of String.
func parseClass(name string) (Class, bool) {
	for path := PathCluster; path < numPaths; path++ {
		for _, proto := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
			rest, ok := strings.CutPrefix(name, fmt.Sprintf("%s-%s", path, proto))
			if !ok {
				continue
			}
			c := Class{Path: path, Protocol: proto, Backends: 1}
			if before, after, ok := strings.Cut(rest, "-affinity-"); ok {
				seconds, _ := strconv.ParseUint(after, 10, 32)
				rest, c.Affinity = before, uint32(seconds)
			}
			for _, b := range []service.Balance{service.Maglev, service.HashSourceIP} {
				if before, ok := strings.CutSuffix(rest, "-"+b.String()); ok {
					rest, c.Balance = before, b
				}
			}
			if c.Balance != service.Maglev {
				c.Backends, _ = strconv.Atoi(strings.TrimPrefix(rest, "-"))
			}
			return c, c.String() == name
		}
	}
	return Class{}, false
}

// Class returns the class that an element points to, if it is of a set whose elements do.
func (e Element) Class() (Class, bool) {
	if !e.Set.points() {
		return Class{}, false
	}
	return classIn(e.Value), true
}
