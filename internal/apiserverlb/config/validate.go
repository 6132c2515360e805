package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Bounds of what a file may say.
const (
	maxListeners   = 64      // a successor gets them all at once
	maxStatic      = 100     // backends
	maxConnections = 1 << 20 // at a time; each takes two file descriptors
	maxWorkers     = 1024
	maxName        = 255 // of a listener, in bytes, as systemd's names of sockets
	maxSocketPath  = 99  // of the Unix socket: 107 (unix(7)), less a dot and a PID in its first name
	maxGoaway      = 0.02
)

// all checks everything but files.
func (c *checks) all(conf Config) {
	c.listeners(conf)
	c.backends(conf)
	c.health(conf.Health)
	c.timeouts(conf.Timeouts)
	c.number("limits.connections", conf.Limits.Connections, 1, maxConnections)
	c.number("limits.perSource", conf.Limits.PerSource, 0, maxConnections)
	c.number("rebalance.spread", conf.Rebalance.Spread, 1, 100)
	c.number("rebalance.percentPerSecond", conf.Rebalance.PercentPerSecond, 1, 100)
	c.within("drain.shutdownDelay", conf.Drain.ShutdownDelay, 0, time.Hour)
	c.within("drain.timeout", conf.Drain.Timeout, 0, 24*time.Hour)
	c.number("workers", conf.Workers, 0, maxWorkers)
	c.https(conf)
	if s := conf.HandoverSocket; s != "" && (!filepath.IsAbs(s) || len(s) > maxSocketPath) {
		c.add("handoverSocket", "%q is not a path that begins with / and has %d bytes at most", s, maxSocketPath)
	}
}

// listeners checks each listener, and that no two of all sockets are in each other's way.
func (c *checks) listeners(conf Config) {
	if n := len(conf.Listeners); n < 1 || n > maxListeners {
		c.add("listeners", "%d are not within 1 to %d", n, maxListeners)
	}
	names, at := map[string]string{}, &sockets{}
	for i, l := range conf.Listeners {
		field := fmt.Sprintf("listeners[%d]", i)
		c.listener(field, l)
		if other := names[l.Name]; other != "" && l.Name != "" {
			c.add(field+".name", "%s has the name %q too", other, l.Name)
		}
		names[l.Name] = field
		addr, err := l.AddrPort()
		c.err(field+".address", err)
		c.apart(at, field+".address", addr)
	}
	if conf.MetricsAddress == "" {
		return
	}
	addr, err := listenAddress(conf.MetricsAddress)
	c.err("metricsAddress", err)
	c.apart(at, "metricsAddress", addr)
}

// sockets are those that are not in each other's way, with the fields that say where they are.
type sockets struct {
	fields []string
	addrs  []netip.AddrPort
}

// apart adds a socket to those before, and says if it is in the way of one.
func (c *checks) apart(before *sockets, field string, addr netip.AddrPort) {
	if !addr.IsValid() {
		return
	}
	for i, a := range before.addrs {
		if overlap(a, addr) {
			c.add(field, "%s is in the way of %s, which is %s", addr, before.fields[i], a)
			return
		}
	}
	before.fields, before.addrs = append(before.fields, field), append(before.addrs, addr)
}

func (c *checks) listener(field string, l Listener) {
	if len(l.Name) > maxName { // it is empty only if the address is, which is said
		c.add(field+".name", "%d bytes are more than %d", len(l.Name), maxName)
	}
	for i, text := range l.ProxyProtocol.From {
		_, err := network(text)
		c.err(fmt.Sprintf("%s.proxyProtocol.from[%d]", field, i), err)
	}
	switch l.Mode {
	case ModeTCP:
		if l.TLS != (Pair{}) {
			c.add(field+".tls", "it is for mode https, and the mode is tcp")
		}
	case ModeHTTPS:
		if l.TLS.CertFile == "" {
			c.add(field+".tls.certFile", "it is empty, and mode https needs it")
		}
		if l.TLS.KeyFile == "" {
			c.add(field+".tls.keyFile", "it is empty, and mode https needs it")
		}
		if l.ProxyProtocol.ToBackends {
			c.add(field+".proxyProtocol.toBackends", "it is for mode tcp: in mode https X-Forwarded-For names the client")
		}
	default:
		c.add(field+".mode", "%q is none of tcp, https", l.Mode)
	}
}

func (c *checks) backends(conf Config) {
	switch n := len(conf.Backends.Static); {
	case n == 0 && conf.Backends.Kubernetes.Kubeconfig != "":
		c.add("backends.static", "it is empty, and the cluster's own list is read through the backends that are here")
	case n == 0:
		c.add("backends.static", "it is empty: name an API server at least")
	case n > maxStatic:
		c.add("backends.static", "%d are more than %d", n, maxStatic)
	}
	seen := map[string]bool{}
	for i, s := range conf.Backends.Static {
		field := fmt.Sprintf("backends.static[%d].address", i)
		addr, err := backendAddress(s.Address)
		c.err(field, err)
		key := strings.ToLower(s.Address)
		if addr.IsValid() {
			key = addr.String()
		}
		if seen[key] {
			c.add(field, "%s is there twice", s.Address)
		}
		seen[key] = true
		if addr.IsValid() {
			c.noLoop(field, addr, conf.Listeners)
		}
	}
	c.within("backends.dnsPeriod", conf.Backends.DNSPeriod, time.Second, time.Hour)
	c.absolute("backends.cacheFile", conf.Backends.CacheFile)
}

// noLoop says if a backend is the balancer itself, as far as addresses alone tell.
func (c *checks) noLoop(field string, backend netip.AddrPort, listeners []Listener) {
	for i, l := range listeners {
		addr, err := l.AddrPort()
		if err != nil || addr.Port() != backend.Port() {
			continue
		}
		if addr.Addr() == backend.Addr() || backend.Addr().IsLoopback() && covers(addr.Addr(), backend.Addr()) {
			c.add(field, "%s is the balancer itself: listeners[%d] is %s", backend, i, addr)
		}
	}
}

func (c *checks) absolute(field, path string) {
	if path != "" && !filepath.IsAbs(path) {
		c.add(field, "%q does not begin with /", path)
	}
}

func (c *checks) health(h Health) {
	if _, err := url.ParseRequestURI(h.Path); err != nil || !strings.HasPrefix(h.Path, "/") || strings.ContainsFunc(h.Path, notInTarget) {
		c.add("health.path", "%q is not a path such as /readyz", h.Path)
	}
	c.within("health.interval", h.Interval, 100*time.Millisecond, time.Minute)
	c.within("health.timeout", h.Timeout, 100*time.Millisecond, time.Minute)
	c.number("health.fall", h.Fall, 1, 10)
	c.number("health.rise", h.Rise, 1, 10)
	c.both("health.certFile", h.CertFile, "health.keyFile", h.KeyFile)
	if h.InsecureSkipVerify && h.CAFile != "" {
		c.add("health.insecureSkipVerify", "it does not go with health.caFile")
	}
}

// notInTarget says whether a character cannot be sent in the target of a request (RFC 9112, section 3.2). The path is sent
// as it is given.
func notInTarget(r rune) bool { return r <= ' ' || r > '~' || r == '#' }

func (c *checks) timeouts(t Timeouts) {
	c.within("timeouts.connect", t.Connect, 100*time.Millisecond, time.Minute)
	c.within("timeouts.hello", t.Hello, 100*time.Millisecond, time.Minute)
	c.within("timeouts.opening", t.Opening, time.Second, 10*time.Minute)
	c.within("timeouts.keepAlive", t.KeepAlive, time.Second, 10*time.Minute) // TCP_KEEPIDLE is in seconds
	c.within("timeouts.user", t.User, time.Second, 10*time.Minute)
	c.within("timeouts.halfClosed", t.HalfClosed, time.Second, 24*time.Hour)
	if least := t.Connect.Duration + t.Hello.Duration; t.Opening.Duration <= least {
		c.add("timeouts.opening", "%v leaves no time for a second backend: connect and hello are %v", t.Opening.Duration, least)
	}
	if t.User.Duration <= t.KeepAlive.Duration {
		c.add("timeouts.user", "%v is not longer than keepAlive, %v: one lost packet would end an idle connection", t.User.Duration, t.KeepAlive.Duration)
	}
}

// https checks the section, and what it needs if a listener uses it.
func (c *checks) https(conf Config) {
	h := conf.HTTPS
	if h.GoawayChance < 0 || h.GoawayChance > maxGoaway {
		c.add("https.goawayChance", "%v is not within 0 to %v", h.GoawayChance, maxGoaway)
	}
	if h.MaxUpgrades == 0 {
		c.add("https.maxUpgrades", "0 is not a limit: -1 forbids them")
	}
	c.number("https.maxUpgrades", h.MaxUpgrades, -1, maxConnections)
	c.within("https.headerTimeout", h.HeaderTimeout, time.Second, 10*time.Minute)
	c.within("https.handshakeTimeout", h.HandshakeTimeout, 100*time.Millisecond, time.Minute)
	c.both("https.frontProxyCertFile", h.FrontProxyCertFile, "https.frontProxyKeyFile", h.FrontProxyKeyFile)
	c.headers("usernameHeaders", h.RequestHeader.UsernameHeaders)
	c.headers("uidHeaders", h.RequestHeader.UIDHeaders)
	c.headers("groupHeaders", h.RequestHeader.GroupHeaders)
	c.headers("extraHeaderPrefixes", h.RequestHeader.ExtraHeaderPrefixes)
	if conf.usesHTTPS() && h.CAFile == "" && !conf.Health.InsecureSkipVerify {
		c.add("https.caFile", "it and health.caFile are empty, and mode https needs the authority of the API servers")
	}
}

func (c *checks) headers(field string, names []string) {
	for i, name := range names {
		if !httpguts.ValidHeaderFieldName(name) {
			c.add(fmt.Sprintf("https.requestHeader.%s[%d]", field, i), "%q is not the name of a header", name)
		}
	}
}

// usesHTTPS says whether a listener is of mode https.
func (c Config) usesHTTPS() bool {
	for _, l := range c.Listeners {
		if l.Mode == ModeHTTPS {
			return true
		}
	}
	return false
}
