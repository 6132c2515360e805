package server

import (
	"fmt"

	"k8s.io/apiserver/pkg/audit"
)

// auditBackend runs the audit log, if there is one.
type auditBackend struct {
	backend audit.Backend // nil: none
	stopped chan struct{}
}

func (b *auditBackend) start() error {
	if b.backend == nil {
		return nil
	}
	b.stopped = make(chan struct{})
	if err := b.backend.Run(b.stopped); err != nil {
		return fmt.Errorf("begin the audit log: %w", err)
	}
	return nil
}

// stop returns when all events are written.
func (b *auditBackend) stop() {
	if b.backend != nil {
		close(b.stopped)
		b.backend.Shutdown()
	}
}
