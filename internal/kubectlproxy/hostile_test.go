package kubectlproxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/kubectlproxy/guard"
	"varco.dev/internal/kubectlproxy/origin"
	"varco.dev/internal/nettest/browser"
)

// loot is what a page must not get: the API server and the folder of files have it.
const loot = "the secret of the cluster"

// harm is what comes of an attack.
type harm int

const (
	none    harm = iota
	reached      // the API server got the request, with the user's credentials
	read         // and the page got its answer
)

// attack is what a page in the user's browser does while a proxy runs.
type attack struct {
	name           string
	from           page
	opened         bool // the user has allowed commands in pods
	noContentType  bool // the request that arrives has none, which an API server takes for JSON
	script         string
	original, ours harm
}

// page is where a script runs.
type page int

const (
	anySite   page = iota // http://evil.test, any page on the web
	rebound               // http://rebind.test:PORT, whose name leads to this computer by now
	inCluster             // a page that an app in the cluster, Service evil, has served through the proxy
)

// attacks are scripts with promises for what they got. They know the proxy's address, the URLs api, own and other of the
// API, of the app that served them and of another app, and mark, which tells requests apart.
func attacks() []attack {
	return []attack{
		{"reads files under a name of its own", rebound, false, false, `get('/static/' + mark)`, read, none},
		{"reads the API under a name of its own", rebound, false, false, `get('/api/v1/namespaces/' + mark + '/secrets')`, none, none},
		{"creates by a POST without Content-Type", anySite, false, true, `post(api + mark + '/pods')`, reached, none},
		{"creates by a beacon", anySite, false, true, `beacon(api + mark + '/pods')`, reached, none},
		{"creates by a form", anySite, false, false, `form(api + mark + '/pods')`, reached, none},
		{"watches by WebSocket", anySite, false, false, `socket(api + mark + '/secrets?watch=true')`, read, none},
		{"forwards a port by WebSocket", anySite, false, false, `socket(api + mark + '/pods/x/portforward?ports=1', 'v4.channel.k8s.io')`, read, none},
		{"runs a command by a node's proxy", anySite, false, false,
			`socket(proxy + '/api/v1/nodes/n/proxy/exec/' + mark + '/x/c?command=sh&output=1', 'v4.channel.k8s.io')`, read, none},
		{"runs a command by WebSocket", anySite, false, false, `socket(api + mark + '/pods/x/exec?command=sh&stdout=1', 'v4.channel.k8s.io')`, none, none},
		{"runs a command where the user may", anySite, true, false, `socket(api + mark + '/pods/x/exec?command=sh&stdout=1', 'v4.channel.k8s.io')`, read, none},
		{"attaches where the user may", anySite, true, false, `socket(api + mark + '/pods/x/attach?stdout=1', 'v4.channel.k8s.io')`, read, none},
		{"app: creates by a POST", inCluster, false, true, `post(api + mark + '/pods')`, reached, none},
		{"app: watches by WebSocket", inCluster, false, false, `socket(api + mark + '/secrets?watch=true')`, read, none},
		// What only reads may arrive: no page gets the answer.
		{"app: reads the API", inCluster, false, false, `get(api + mark + '/secrets')`, read, reached},
		{"app: changes another app", inCluster, false, true, `post(other + mark)`, reached, none},
		{"app: talks with another app by WebSocket", inCluster, false, false, `socket(other + mark)`, read, none},
		{"app: reads another app", inCluster, false, false, `get(other + mark)`, read, reached},
		// These are no attacks: an app's page needs its own app.
		{"app: changes itself", inCluster, false, true, `post(own + mark)`, reached, reached},
		{"app: talks with itself by WebSocket", inCluster, false, false, `socket(own + mark)`, read, read},
		{"app: reads itself", inCluster, false, false, `get(own + mark)`, read, read},
	}
}

// tools are the ways in which scripts send what they want.
const tools = `
const body = () => new Blob(['{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}'])
const fail = e => 'failed: ' + e
const get = url => fetch(url).then(r => r.text()).catch(fail)
const post = url => fetch(url, {method: 'POST', mode: 'no-cors', body: body()}).then(() => 'sent').catch(fail)
const beacon = url => Promise.resolve(String(navigator.sendBeacon(url, body())))
const form = url => new Promise(done => {
	const frame = document.createElement('iframe'), form = document.createElement('form'), field = document.createElement('input')
	frame.name = mark
	document.body.append(frame, form)
	frame.onload = () => done('sent')
	Object.assign(form, {method: 'POST', enctype: 'text/plain', action: url, target: mark})
	Object.assign(field, {name: '{"kind":"Pod","x":"', value: '"}'})
	form.append(field)
	form.submit()
})
const socket = (url, protocol) => new Promise(done => {
	const s = new WebSocket(url.replace(/^http/, 'ws'), protocol ? [protocol] : [])
	s.onmessage = async m => done(typeof m.data === 'string' ? m.data : await m.data.text())
	s.onerror = () => done('failed')
	s.onclose = s.onerror
})
`

// TestHostilePages runs each attack in a real browser, against kubectl proxy and against ours: what works there fails here.
func TestHostilePages(t *testing.T) {
	chromium := browser.New(t, "host-resolver-rules=MAP evil.test 127.0.0.1, MAP rebind.test 127.0.0.1")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { servePage(w) }))
	defer web.Close()
	sites := map[bool]*site{}
	for _, opened := range []bool{false, true} {
		sites[opened] = newSite(t, opened, strings.Replace(web.URL, "127.0.0.1", "evil.test", 1))
	}
	for i, a := range attacks() {
		mark := fmt.Sprint("mark-", i)
		for _, run := range []struct {
			name string
			ours bool
			want harm
		}{{"kubectl proxy", false, a.original}, {"varco", true, a.ours}} {
			t.Run(a.name+"/"+run.name, func(t *testing.T) {
				sites[a.opened].attack(t, chromium, a, fmt.Sprint(mark, "-", run.ours), run.ours, run.want)
			})
		}
	}
}

// site is a user's computer with both proxies.
type site struct {
	*stage
	evil string                     // URL of any site
	tabs map[string]context.Context // by what they show
	mu   sync.Mutex
	got  map[string]*http.Request // by mark
}

func newSite(t *testing.T, opened bool, evil string) *site {
	t.Helper()
	v := &site{evil: evil, tabs: map[string]context.Context{}, got: map[string]*http.Request{}}
	files := t.TempDir()
	for i := range attacks() {
		for _, ours := range []bool{false, true} {
			if err := os.WriteFile(filepath.Join(files, fmt.Sprint("mark-", i, "-", ours)), []byte(loot), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	v.stage = newStage(t, func(s *stage) {
		s.config.StaticDir, s.config.Services = files, origin.ModeProxy
		s.config.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if opened {
			s.config.Guard.RejectPaths, s.config.Guard.Allow = "", []string{guard.Exec, guard.Attach, guard.PortForward}
		}
	})
	v.api.answers(v.serve)
	return v
}

// serve is an API server that lets every page in that sends the right credentials, as real ones do; apps are behind it.
func (v *site) serve(w http.ResponseWriter, r *http.Request) {
	if at := strings.Index(r.URL.Path, "mark-"); at >= 0 {
		mark, _, _ := strings.Cut(r.URL.Path[at:], "/")
		v.mu.Lock()
		v.got[mark] = r
		v.mu.Unlock()
	}
	const apps = "/api/v1/namespaces/default/services/"
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, apps), "/")
	switch {
	case r.Header.Get("Upgrade") != "":
		serveSocket(w, r)
	case strings.HasSuffix(r.URL.Path, "/endpointslices"):
		port, app := int32(80), corev1.ObjectReference{Kind: "Pod", Name: "app"}
		writeObject(w, &discoveryv1.EndpointSliceList{Items: []discoveryv1.EndpointSlice{{
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}, TargetRef: &app}},
		}}})
	case strings.HasPrefix(r.URL.Path, apps) && rest == "":
		writeObject(w, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		})
	case strings.HasSuffix(r.URL.Path, "/proxy/"):
		servePage(w)
	default:
		fmt.Fprint(w, loot)
	}
}

func servePage(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprint(w, "<!DOCTYPE html><title>page</title><body></body>")
}

func writeObject(w http.ResponseWriter, o any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o) // the proxy is gone
}

// serveSocket takes every origin, as API servers do, and tells what there is to tell.
func serveSocket(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: websocket.Subprotocols(r)}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer c.Close()
	if c.WriteMessage(websocket.BinaryMessage, []byte(loot)) == nil {
		_, _ = io.Copy(io.Discard, c.NetConn()) // until the page leaves
	}
}

// attack runs the script in its page and compares what came of it.
func (v *site) attack(t *testing.T, chromium context.Context, a attack, mark string, ours bool, want harm) {
	at, script := v.stagePage(a, mark, ours)
	got, err := chromedp.Run(v.tab(t, chromium, at), chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("running the script: %v", err)
	}
	if has := strings.Contains(got, loot); has != (want == read) {
		t.Errorf("the page got %q", got)
	}
	if a.from == rebound && want == read { // a file is not the API server's
		return
	}
	if want != none {
		v.arrived(t, a, mark)
		return
	}
	if ours {
		// What was lost on the way would prove nothing.
		eventually(t, "the proxy refuses it", func() bool { return v.refused(mark) })
	}
	if r := v.request(mark); r != nil {
		t.Errorf("the API server got %s %s", r.Method, r.URL)
	}
}

// tab returns a tab that shows a page; opening one takes longer than most attacks.
func (v *site) tab(t *testing.T, chromium context.Context, at string) context.Context {
	t.Helper()
	if tab, ok := v.tabs[at]; ok {
		return tab
	}
	tab := browser.Tab(v.t, chromium)
	if err := chromedp.Do(tab, chromedp.Navigate(at)); err != nil {
		t.Fatalf("opening %s: %v", at, err)
	}
	v.tabs[at] = tab
	return tab
}

// stagePage returns the URL of the page that attacks, and its whole script.
func (v *site) stagePage(a attack, mark string, ours bool) (at, script string) {
	port, host := v.original.port(), "127.0.0.1"
	if ours {
		port = v.ours.port()
	}
	if a.from == inCluster {
		host = "localhost" // the same site as the app's page, and with the original the same origin
	}
	proxy := "http://" + host + port
	own, other := proxy+"/api/v1/namespaces/default/services/evil:80/proxy/", proxy+"/api/v1/namespaces/default/services/other:80/proxy/"
	if ours {
		own, other = "http://80.evil.default.svc.localhost"+port+"/", "http://80.other.default.svc.localhost"+port+"/"
	}
	at = map[page]string{anySite: v.evil, rebound: "http://rebind.test" + port + "/", inCluster: own}[a.from]
	script = fmt.Sprintf("(() => { const proxy = %q, api = %q, own = %q, other = %q, mark = %q\n%s\nreturn %s })()",
		proxy, proxy+"/api/v1/namespaces/", own, other, mark, tools, a.script)
	return at, script
}

// arrived fails the test unless the request has come to the API server with the user's credentials.
func (v *site) arrived(t *testing.T, a attack, mark string) {
	t.Helper()
	eventually(t, "the API server has it", func() bool { return v.request(mark) != nil })
	r := v.request(mark)
	if got := r.Header.Get("Authorization"); got != "Bearer secret" {
		t.Errorf("it has the credentials %q", got)
	}
	if kind, ok := r.Header["Content-Type"]; a.noContentType && ok {
		t.Errorf("it has Content-Type %q", kind)
	}
}

func (v *site) request(mark string) *http.Request {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.got[mark]
}

// refused looks into the log of ours.
func (v *site) refused(mark string) bool {
	for line := range strings.Lines(v.log.String()) {
		if strings.Contains(line, "msg=request") && strings.Contains(line, "code=403") && strings.Contains(line, mark) {
			return true
		}
	}
	return false
}
