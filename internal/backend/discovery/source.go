package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// source is what one source said. Run's goroutine changes it, under the lock of the discovery.
type source struct {
	name string // "dns NAME" or "kubernetes"
	key  string // in the cache: "dns NAME:PORT" or "kubernetes"
	host string // of a name
	port uint16 // of a name
	zone string // of a name

	addrs    []netip.AddrPort // the last answer that was not empty, sorted; at first what the cache has
	left     int              // how many more the answer had
	answered bool             // addrs is not from the cache
	at       time.Time        // of the last answer that was not empty
	err      error            // why the last answer does not count
	broken   bool             // addrs did not work, and no other answer came since: see Rescue
}

// answer is what a source says now.
type answer struct {
	from  *source
	addrs []netip.AddrPort
	err   error // why it has none
}

// Errors of answers that do not count.
var (
	errEmpty = errors.New("it names no address")
	errOwn   = errors.New("it names nothing but addresses that the own listeners have, or that no server can")
)

// read takes the lines of the configuration. The first of those that are the same counts.
func (d *Discovery) read(lines []Static) error {
	var problems []error
	for i, line := range lines {
		if err := d.readLine(line); err != nil {
			problems = append(problems, fmt.Errorf("static[%d]: %w", i, err))
		}
	}
	return errors.Join(problems...)
}

func (d *Discovery) readLine(line Static) error {
	host, port, err := split(line.Address)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		addr := netip.AddrPortFrom(ip.Unmap(), port)
		if !sound(addr) {
			return fmt.Errorf("address %s: no server can have it", addr)
		}
		d.static = append(d.static, Found{Addr: addr, Zone: line.Zone, Source: sourceStatic})
		return nil
	}
	key := "dns " + net.JoinHostPort(host, strconv.Itoa(int(port)))
	if !slices.ContainsFunc(d.names, func(s *source) bool { return s.key == key }) {
		d.names = append(d.names, &source{name: "dns " + host, key: key, host: host, port: port, zone: line.Zone})
	}
	return nil
}

// split reads HOST:PORT.
func split(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err // it names the address
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("address %s: port %q is not between 1 and 65535", address, text)
	}
	if host == "" {
		return "", 0, fmt.Errorf("address %s: it has no host", address)
	}
	return host, uint16(n), nil
}

// sources returns all that can answer.
func (d *Discovery) sources() []*source {
	if d.slices == nil {
		return d.names
	}
	return append(slices.Clone(d.names), d.slices)
}

// usable says whether an address can be one of an API server.
func (d *Discovery) usable(a netip.AddrPort) bool { return sound(a) && !d.own(a) }

func (d *Discovery) own(a netip.AddrPort) bool { return d.config.Own != nil && d.config.Own(a) }

// sound says whether a server can have an address.
func sound(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast()
}

// clean returns the addresses of an answer that count: unmapped, sorted, each once, and not too many. How many are left out
// as too many is the second result.
func (d *Discovery) clean(addrs []netip.AddrPort) ([]netip.AddrPort, int, error) {
	out := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		if a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()); d.usable(a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	out = slices.Compact(out)
	switch {
	case len(addrs) == 0:
		return nil, 0, errEmpty
	case len(out) == 0:
		return nil, 0, errOwn
	}
	most := min(len(out), MaxTargets)
	return out[:most], len(out) - most, nil
}
