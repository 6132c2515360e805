package nettest

import (
	"errors"
	"fmt"
	"io"
	"net"

	"varco.dev/internal/nettest/sctp"
)

// Echo answers "NAME CLIENT" on TCP, UDP and SCTP, with the address that the client is seen to have, until it is closed.
type Echo struct {
	name    string
	servers []io.Closer
}

// StartEcho serves on a port of all addresses of the namespace.
func StartEcho(n *Namespace, name string, port uint16) (*Echo, error) {
	e := &Echo{name: name}
	at := fmt.Sprintf("[::]:%d", port)
	l, err := n.Listen("tcp", at)
	if err != nil {
		return nil, err
	}
	e.serve(l, func() { e.serveTCP(l) })
	for _, open := range []func(*Namespace, uint16) (datagrams, error){openDatagrams4, openDatagrams6} {
		d, err := open(n, port)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.serve(d, func() { e.serveUDP(d) })
	}
	a, err := n.ListenSCTP(at)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	e.serve(a, func() { e.serveSCTP(a) })
	return e, nil
}

// serve runs fn until the server is closed.
func (e *Echo) serve(server io.Closer, fn func()) {
	e.servers = append(e.servers, server)
	go fn()
}

// Close ends all servers.
func (e *Echo) Close() error {
	var errs []error
	for _, s := range e.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func (e *Echo) answer(client net.Addr) []byte { return []byte(e.name + " " + client.String()) }

func (e *Echo) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Write(e.answer(c.RemoteAddr()))
		c.Close()
	}
}

func (e *Echo) serveUDP(d datagrams) {
	for {
		asked, client, err := d.read()
		if err != nil {
			return
		}
		d.write(e.answer(client), asked, client)
	}
}

func (e *Echo) serveSCTP(l *sctp.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Write(e.answer(c.RemoteAddr()))
	}
}
