package echo

import (
	"fmt"
	"net"
	"os"
)

// Identity is who answers.
type Identity struct{ Pod, Node string }

// IdentityFromEnv takes the names from POD_NAME and NODE_NAME, and the host's name for what is missing.
func IdentityFromEnv() Identity {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	id := Identity{Pod: os.Getenv("POD_NAME"), Node: os.Getenv("NODE_NAME")}
	if id.Pod == "" {
		id.Pod = host
	}
	if id.Node == "" {
		id.Node = host
	}
	return id
}

// Line is the answer of the protocols that have no headers, with its line feed.
func (id Identity) Line(client net.Addr) string {
	return fmt.Sprintf("pod=%s node=%s client=%s\n", id.Pod, id.Node, client)
}
