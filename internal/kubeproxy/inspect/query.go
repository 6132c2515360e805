package inspect

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"varco.dev/internal/service"
)

// ParseQuery reads ADDRESS:PORT[/PROTOCOL], such as 10.96.0.10:53/udp, and the client's address or "".
func ParseQuery(target, from string) (q Query, err error) {
	at, protocol, named := strings.Cut(target, "/")
	if !named {
		protocol = "tcp"
	}
	if q.Protocol, err = parseProtocol(protocol); err != nil {
		return q, err
	}
	if q.To, err = netip.ParseAddrPort(at); err != nil {
		return q, fmt.Errorf("%q is not an address and port such as 10.96.0.10:53 or [fd00::10]:53", at)
	}
	q.To = netip.AddrPortFrom(q.To.Addr().Unmap(), q.To.Port())
	if from == "" {
		return q, nil
	}
	if q.From, err = netip.ParseAddr(from); err != nil {
		return q, fmt.Errorf("--from: %q is not an IP address", from)
	}
	if q.From = q.From.Unmap(); q.From.Is4() != q.To.Addr().Is4() {
		return q, fmt.Errorf("--from: %s and %s are not of the same IP family", q.From, q.To.Addr())
	}
	return q, nil
}

func parseProtocol(s string) (service.Protocol, error) {
	for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
		if strings.EqualFold(s, p.String()) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%q is not tcp, udp or sctp", s)
}

func (q Query) encode() url.Values {
	v := url.Values{"to": {q.To.String() + "/" + q.Protocol.String()}}
	if q.From.IsValid() {
		v.Set("from", q.From.String())
	}
	return v
}

func decodeQuery(v url.Values) (Query, error) { return ParseQuery(v.Get("to"), v.Get("from")) }
