package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// GatewayConfig says how to run varco kubectl-proxy, and where to show what it does.
type GatewayConfig struct {
	Varco      string // the program
	Kubeconfig string // path
	Out        io.Writer
}

// Gateway is a varco kubectl-proxy on the user's side: a process of this machine, outside the lab's networks.
type Gateway struct {
	// Page is the URL of its start page.
	Page string

	address string // host:port
	process *exec.Cmd
	errs    bytes.Buffer  // may be read when it has ended
	ended   chan struct{} // closed when it has
}

// Bounds of what the gateway may take.
const (
	gatewayStart = 10 * time.Second
	gatewayStop  = 5 * time.Second
	gatewayAsk   = 5 * time.Second
)

// ShowGateway starts varco kubectl-proxy with its start page on a free port, and prints what a user gets there. The Gateway
// runs until Stop, also if the error is ErrFailed; with another error there is none.
func ShowGateway(ctx context.Context, cfg GatewayConfig) (*Gateway, error) {
	c, g := newConsole(cfg.Out), &Gateway{ended: make(chan struct{})}
	err := c.step("kubectl-proxy", func() (string, error) {
		err := g.start(ctx, cfg)
		return "varco kubectl-proxy --ui serves at " + g.Page, err
	})
	if err != nil {
		g.Stop()
		return nil, err
	}
	wrong, err := g.show(ctx, c)
	if err != nil {
		g.Stop()
		return nil, err
	}
	if wrong > 0 {
		err = ErrFailed
	}
	return g, err
}

// start returns when the gateway has said where it serves.
func (g *Gateway) start(ctx context.Context, cfg GatewayConfig) error {
	g.process = exec.Command(cfg.Varco, "kubectl-proxy", "--kubeconfig="+cfg.Kubeconfig, "--port=0", "--ui")
	// It ends with this process, and not by a Ctrl-C that is meant for this process.
	g.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, theirs := io.Pipe()
	g.process.Stdout, g.process.Stderr = theirs, &g.errs
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the death of the parent is that of this thread
		defer close(g.ended)
		err := g.process.Start()
		started <- err
		if err == nil {
			_ = g.process.Wait() // what it says is in errs
		}
		theirs.Close()
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start varco kubectl-proxy: %w", err)
	}
	said := make(chan error, 1)
	go func() {
		in := bufio.NewReader(out)
		said <- g.read(in)
		_, _ = io.Copy(io.Discard, in)
	}()
	var err error
	select {
	case err = <-said:
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(gatewayStart):
		err = fmt.Errorf("it said nothing in %s", gatewayStart)
	}
	if err != nil {
		g.Stop()
		return fmt.Errorf("start varco kubectl-proxy: %w: %s", err, strings.TrimSpace(g.errs.String()))
	}
	return nil
}

// read reads where the gateway serves, and where its page is, from its output.
func (g *Gateway) read(in *bufio.Reader) error {
	for _, line := range []struct {
		prefix string
		to     *string
	}{{"Starting to serve on ", &g.address}, {"Open ", &g.Page}} {
		text, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read where it serves: %w", err)
		}
		var ok bool
		if *line.to, ok = strings.CutPrefix(strings.TrimSpace(text), line.prefix); !ok {
			return fmt.Errorf("it said %q, want %q", text, line.prefix)
		}
	}
	return nil
}

// Stop ends the gateway; one that has ended is fine.
func (g *Gateway) Stop() {
	if g.process == nil || g.process.Process == nil {
		return
	}
	_ = g.process.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-g.ended:
	case <-time.After(gatewayStop):
		_ = g.process.Process.Kill()
		<-g.ended
	}
}

// question is one thing that a user asks a gateway for.
type question struct {
	to, url, want string
	// seen says what an answer is, and whether it is as wanted.
	seen func(*http.Response) (text string, ok bool)
}

// questions are what the demo asks.
func (g *Gateway) questions() []question {
	_, port, _ := net.SplitHostPort(g.address) // the line has been read
	local := "http://localhost:" + port
	return []question{
		{"start page", g.Page, "HTML", seenPage},
		{"API", local + "/api/v1/namespaces/default/pods", "pods", seenPods},
		{"Service by its own name", "http://80.echo.default.svc.localhost:" + port + "/", "a pod of it", seenPod},
		{"command in a pod", local + "/api/v1/namespaces/default/pods/visitor/exec?command=id", "refused", seenRefusal},
	}
}

func seenPage(r *http.Response) (string, bool) {
	kind := r.Header.Get("Content-Type")
	return fmt.Sprintf("%d, %s", r.StatusCode, kind), r.StatusCode == http.StatusOK && strings.HasPrefix(kind, "text/html")
}

func seenPods(r *http.Response) (string, bool) {
	var list corev1.PodList
	err := json.NewDecoder(r.Body).Decode(&list)
	return fmt.Sprintf("%d pods", len(list.Items)), err == nil && len(list.Items) > 0
}

func seenPod(r *http.Response) (string, bool) {
	pod := r.Header.Get("X-Pod")
	return "pod " + pod, r.StatusCode == http.StatusOK && strings.HasPrefix(pod, "echo-")
}

func seenRefusal(r *http.Response) (string, bool) {
	if r.StatusCode != http.StatusForbidden {
		return r.Status, false
	}
	return "refused", true
}

// show asks and prints a table; it returns how many rows are wrong.
func (g *Gateway) show(ctx context.Context, c *console) (wrong int, err error) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\tTO\tURL\tEXPECTED\tSEEN")
	for _, q := range g.questions() {
		seen, ok := g.ask(ctx, q)
		if !ok {
			seen = "✗ " + seen
			wrong++
		}
		fmt.Fprintf(w, "user\t%s\t%s\t%s\t%s\n", q.to, q.url, q.want, seen)
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	c.line("\n%s", table.String())
	return wrong, ctx.Err()
}

// ask goes to the gateway whatever the URL's host: not every resolver knows that names below localhost are this machine's.
func (g *Gateway) ask(ctx context.Context, q question) (seen string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, gatewayAsk)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, q.url, nil)
	if err != nil {
		return err.Error(), false
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, g.address)
		},
	}}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error(), false
	}
	defer resp.Body.Close()
	return q.seen(resp)
}
