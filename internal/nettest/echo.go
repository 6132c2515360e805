package nettest

import (
	"errors"
	"fmt"
	"net"
)

// Echo answers "NAME CLIENT" on TCP and UDP, with the address that the client is seen to have, until it is closed.
type Echo struct {
	name     string
	listener net.Listener
	packets  net.PacketConn
}

// StartEcho serves on a port of all addresses of the namespace.
func StartEcho(n *Namespace, name string, port uint16) (*Echo, error) {
	at := fmt.Sprintf("[::]:%d", port)
	l, err := n.Listen("tcp", at)
	if err != nil {
		return nil, err
	}
	p, err := n.ListenPacket("udp", at)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	e := &Echo{name: name, listener: l, packets: p}
	go e.serveTCP()
	go e.serveUDP()
	return e, nil
}

// Close ends both servers.
func (e *Echo) Close() error { return errors.Join(e.listener.Close(), e.packets.Close()) }

func (e *Echo) answer(client net.Addr) []byte { return []byte(e.name + " " + client.String()) }

func (e *Echo) serveTCP() {
	for {
		c, err := e.listener.Accept()
		if err != nil {
			return
		}
		c.Write(e.answer(c.RemoteAddr()))
		c.Close()
	}
}

func (e *Echo) serveUDP() {
	buf := make([]byte, 64)
	for {
		_, client, err := e.packets.ReadFrom(buf)
		if err != nil {
			return
		}
		e.packets.WriteTo(e.answer(client), client)
	}
}
