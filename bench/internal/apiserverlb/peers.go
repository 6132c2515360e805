package apiserverlb

import (
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"varco.dev/bench/internal/contender"
)

// Names of the contenders.
const (
	varco   = "varco"
	haproxy = "haproxy"
	nginx   = "nginx"
	// cutting is HAProxy that ends the sessions of a server that is down.
	cutting = "haproxy cutting"
	// direct is no balancer: clients talk to a backend.
	direct = "direct"
)

// contenders are all of them; the first has the bars, the second is what it is compared with.
var contenders = []string{varco, haproxy, nginx, cutting, direct}

// onlySpeed and onlyFaults say where those are that are not everywhere.
func onlySpeed(name string) bool  { return name == direct }
func onlyFaults(name string) bool { return name == cutting }

// Programs of the peers, and where Debian puts nginx's module for TCP.
const (
	haproxyProgram = "haproxy"
	nginxProgram   = "nginx"
)

// nginxModule is of Debian's package libnginx-mod-stream.
const nginxModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

// Debian's packages of the peers.
const (
	haproxyPackage = "haproxy"
	nginxPackages  = "nginx-light libnginx-mod-stream"
)

// missing says why a peer cannot be measured, with what to install; it is nil if it can.
func missing(name string) error {
	look := func(program, packages string) error {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed (apt-get install %s)", name, packages)
		}
		return nil
	}
	switch name {
	case haproxy, cutting:
		return look(haproxyProgram, haproxyPackage)
	case nginx:
		if _, err := os.Stat(nginxModule); err != nil {
			return fmt.Errorf("%s has no module for TCP (apt-get install %s)", name, nginxPackages)
		}
		return look(nginxProgram, nginxPackages)
	}
	return nil
}

// job is what a balancer is configured for.
type job struct {
	// Dir is a folder of its own.
	Dir string
	// At is where it listens.
	At netip.AddrPort
	// Backends are API servers, CAFile is who has signed their certificates.
	Backends []netip.AddrPort
	CAFile   string
	// Limit is how many connections it takes at a time, Files how many files it may have open.
	Limit int
	Files uint64
	// Cutting says that it ends sessions of servers that are down.
	Cutting bool
	// Module is the path of a module.
	Module string
}

//go:embed peers/*
var templates embed.FS

// write makes the configuration file.
func (j job) write(name string) (string, error) {
	if err := os.MkdirAll(j.Dir, 0o755); err != nil {
		return "", err
	}
	t, err := template.ParseFS(templates, "peers/"+name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, j); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	path := filepath.Join(j.Dir, name)
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}

// program is what runs a balancer for a job.
func (o *options) program(name string, j job) (c contender.Contender, err error) {
	var file string
	c.Name = name
	switch name {
	case varco:
		file, err = j.write("varco.yaml")
		c.Path, c.Args = o.varco, append([]string{"apiserver-lb", "--config", file}, o.varcoArgs...)
	case haproxy, cutting:
		j.Cutting = name == cutting
		file, err = j.write("haproxy.cfg")
		c.Path, c.Args = haproxyProgram, []string{"-db", "-f", file} // -db: in the foreground
	case nginx:
		j.Module = nginxModule
		file, err = j.write("nginx.conf")
		c.Path, c.Args = nginxProgram, []string{"-p", j.Dir, "-e", filepath.Join(j.Dir, "error.log"), "-c", file}
	default:
		err = errors.New("no program of that name: " + name)
	}
	return c, err
}
