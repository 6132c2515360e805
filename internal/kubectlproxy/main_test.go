package kubectlproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"
	"k8s.io/kubectl/pkg/cmd/proxy"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"varco.dev/internal/nettest"
)

// role is the variable that makes this binary something else than a test. roleData is what that needs.
const (
	role     = "VARCO_TEST_ROLE"
	roleData = "VARCO_TEST_DATA"

	asOriginal = "original" // kubectl proxy itself, with the arguments as its flags
	asPlugin   = "plugin"   // a credential plugin: prints the file roleData
	asStranger = "stranger" // a client: asks for / at "<network> <address>" and prints the code
)

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case asOriginal:
		beTheOriginal()
	case asPlugin:
		credential, _ := os.ReadFile(os.Getenv(roleData))
		os.Stdout.Write(credential)
	case asStranger:
		beAStranger()
	default:
		klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // the original logs what it fails to do
		os.Exit(m.Run())
	}
}

func beTheOriginal() {
	kube := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag()
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	cmd := proxy.NewCmdProxy(cmdutil.NewFactory(cmdutil.NewMatchVersionFlags(kube)), streams)
	kube.AddFlags(cmd.PersistentFlags())
	if err := cmd.Execute(); err != nil {
		os.Exit(1)
	}
}

func beAStranger() {
	network, address, _ := strings.Cut(os.Getenv(roleData), " ")
	conn, err := net.Dial(network, address)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = io.WriteString(conn, get("/")) // a failure shows when the answer is read
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resp.StatusCode)
}

// process is kubectl proxy as a process of its own.
type process struct {
	*exec.Cmd
	first string           // line of its output; empty if it has ended before
	said  *nettest.Journal // on standard error
}

// startProcess starts kubectl proxy with this kubeconfig and waits for its first line.
func startProcess(t *testing.T, kubeconfig string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(self, append([]string{"--kubeconfig=" + kubeconfig}, args...)...), said: &nettest.Journal{}}
	p.Env = append(os.Environ(), role+"="+asOriginal)
	p.Stderr = p.said
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(os.Kill) })
	p.first, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.Wait() // it has failed, which said tells
	}
	return p
}

// end sends a signal and waits for the process to be gone. It may be repeated.
func (p *process) end(how os.Signal) {
	if p.ProcessState == nil {
		_ = p.Process.Signal(how) // it may have ended by itself
		_ = p.Wait()
	}
}

// says fails the test unless the process says this on standard error.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("kubectl proxy says %q", text), func() bool { return strings.Contains(p.said.String(), text) })
}

// server is where the process serves.
func (p *process) server(t *testing.T) server { return serverOf(t, p.first) }

// serverOf reads the first line of output.
func serverOf(t *testing.T, line string) server {
	t.Helper()
	at, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "Starting to serve on ")
	if !ok {
		t.Fatalf("first line of output: %q", line)
	}
	if filepath.IsAbs(at) {
		return server{"unix", at}
	}
	return server{"tcp", at}
}

// eventually waits for something that no event tells.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(10 * time.Millisecond) // what is waited for is in a file, or in the kernel
	}
}
