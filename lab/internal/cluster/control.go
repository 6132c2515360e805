package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Component is a process of the lab: a part of the control plane or a node agent.
type Component struct {
	Name string `json:"name"`
	// Host is the machine, and so the network namespace, that it runs on.
	Host string `json:"host"`
	// State is "running", "stopped" (by someone's wish) or "ended" (by itself; Error says how).
	State string `json:"state"`
	Error string `json:"error,omitempty"`
	// Since is when the state began.
	Since time.Time `json:"since"`
	// Restarts counts starts after the first. The lab itself restarts nothing.
	Restarts int `json:"restarts"`
	// Memory is what it has in memory for itself alone, in bytes; all share some 100 MB of program beside it.
	Memory int64 `json:"memory"`
	// Log is the path of what it wrote.
	Log string `json:"log"`
}

// controlServer lets those who hold the folder of the lab look at its processes, stop and start them.
type controlServer struct{ supervisor *supervisor }

// Run serves until ctx ends.
func (c *controlServer) Run(ctx context.Context) error {
	listener, err := net.Listen("unix", filepath.Join(c.supervisor.cfg.Dir, controlFile))
	if err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /components", c.list)
	mux.HandleFunc("POST /components/{name}/stop", c.stop)
	mux.HandleFunc("POST /components/{name}/start", c.start)
	mux.HandleFunc("POST /components/{name}/signal", c.signal)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control: %w", err)
	}
	return nil
}

func (c *controlServer) list(w http.ResponseWriter, _ *http.Request) {
	list := []Component{{Name: "supervisor", Host: "(this machine)", State: "running",
		Since: c.supervisor.began, Memory: ownMemory(1), Log: logPath(c.supervisor.cfg.Dir, "supervisor")}}
	for _, p := range c.supervisor.all() {
		list = append(list, p.component())
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // the client has gone away
}

func (c *controlServer) stop(w http.ResponseWriter, r *http.Request) {
	p, ok := c.supervisor.find(r.PathValue("name"))
	if !ok {
		http.Error(w, "no component of that name", http.StatusNotFound)
		return
	}
	grace, err := time.ParseDuration(r.URL.Query().Get("grace"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.stop(grace)
}

func (c *controlServer) start(w http.ResponseWriter, r *http.Request) {
	p, ok := c.supervisor.find(r.PathValue("name"))
	if !ok {
		http.Error(w, "no component of that name", http.StatusNotFound)
		return
	}
	if err := p.start(); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func (c *controlServer) signal(w http.ResponseWriter, r *http.Request) {
	p, ok := c.supervisor.find(r.PathValue("name"))
	if !ok {
		http.Error(w, "no component of that name", http.StatusNotFound)
		return
	}
	sig := unix.SignalNum(r.URL.Query().Get("signal"))
	if sig == 0 {
		http.Error(w, "no signal of that name", http.StatusBadRequest)
		return
	}
	if err := p.signal(sig); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// component describes the process.
func (p *process) component() Component {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := Component{Name: p.name, Host: p.host, State: "running", Since: p.started, Restarts: max(0, p.starts-1), Log: p.logPath}
	switch {
	case p.running():
		c.Memory = ownMemory(p.cmd.Process.Pid)
	case p.stopped:
		c.State, c.Since = "stopped", p.ended
	default:
		c.State, c.Since, c.Error = "ended", p.ended, exitText(p.err)
	}
	return c
}
