package kubectlproxy_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

// row is something that kubectl proxy v1.37 does. Its test sends the same bytes to kubectl proxy and to ours, looks at what
// comes back there first, and then at what comes back here.
type row struct {
	name           string // of the subtest
	what           string
	original, here string // "same": as there
	test           func(*testing.T)
	elsewhere      string // or: file and name of a test in another package
}

// same is what most rows say.
const same = "same"

func TestCompatibility(t *testing.T) {
	for _, r := range rows() {
		if r.test == nil {
			t.Run(r.name, func(t *testing.T) {
				file, name, _ := strings.Cut(r.elsewhere, " ")
				contains(t, file, "func "+name+"(")
			})
			continue
		}
		t.Run(r.name, r.test)
	}
}

// TestCompatibilityTable compares the table in README.md with the rows; -update rewrites it.
func TestCompatibilityTable(t *testing.T) {
	const file, title, next = "README.md", "## Compatibility\n\n", "\n## "
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), title)
	section, after, ok2 := strings.Cut(rest, next)
	if !ok || !ok2 {
		t.Fatalf("%s has no section %q before another", file, title)
	}
	want := table()
	if *update {
		b = []byte(before + title + want + next + after)
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if section != want {
		t.Errorf("the table in %s is not that of the tests; go test -run %s -update writes:\n%s", file, t.Name(), want)
	}
}

// table is the rows in Markdown: what differs as a table, and what does not as a list.
func table() string {
	var differs, equal strings.Builder
	for _, r := range rows() {
		test := "TestCompatibility/" + r.name
		if r.test == nil {
			_, test, _ = strings.Cut(r.elsewhere, " ")
		}
		if r.here == same {
			fmt.Fprintf(&equal, "- %s: %s (`%s`)\n", r.what, r.original, test)
		} else {
			fmt.Fprintf(&differs, "| %s | %s | %s | `%s` |\n", r.what, r.original, r.here, test)
		}
	}
	return "The same bytes are sent to both, and this comes back:\n\n| what | `kubectl proxy` v1.37 | here | test |\n|---|---|---|---|\n" +
		differs.String() + "\nThe same in both:\n\n" + equal.String()
}

func rows() []row {
	var all []row
	for _, part := range [][]row{servingRows(), filterRows(), passingRows(), streamRows(), furtherRows()} {
		all = append(all, part...)
	}
	return all
}

func servingRows() []row {
	return []row{
		{name: "flags", what: "flags and their defaults", original: "its own, and those of all kubectl commands", here: "all; `--append-server-path` is on by default",
			elsewhere: "../cli/kubectlproxy_test.go TestKubectlFlags"},
		{name: "first-line", what: "first line of output; `--port 0`", original: "`Starting to serve on 127.0.0.1:8001`, `[::1]:…`, or the socket", here: same,
			test: testFirstLine},
		{name: "address-without-brackets", what: "`--address ::1`", original: "\"too many colons in address\"", here: "serves; brackets may be there or not",
			test: testAddressWithoutBrackets},
		{name: "port-taken", what: "port that is taken", original: "\"address already in use\"", here: "same, and names `--port`", test: testPortTaken},
		{name: "port-and-socket", what: "`--port` and `--unix-socket`", original: "\"cannot set … at the same time\"", here: same, test: testPortAndSocket},
		{name: "socket", what: "`--unix-socket`: mode, socket that is left over, end", original: "0700; replaced; stays behind", here: "0700; replaced; is removed",
			test: testSocket},
		{name: "socket-is-a-file", what: "`--unix-socket` names a file", original: "refused, file untouched", here: same, test: testSocketFile},
		{name: "static", what: "`--www`: files, lists of folders, links", original: "served", here: same, test: testStatic},
		{name: "static-missing", what: "`--www` names no folder", original: "a warning", here: same, test: testStaticMissing},
		{name: "static-filter", what: "`--www` and the filter: hosts, methods, paths, other sites", original: "not filtered: any page reads the files", here: "filtered as the API is",
			test: testStaticFilter},
		{name: "static-prefix", what: "`--www-prefix` without slashes", original: "`site` is taken for a host: the path goes to the API", here: "slashes are added", test: testStaticPrefix},
		{name: "api-prefix", what: "`--api-prefix`", original: "cut off the path; `k8s-api` is taken for a host: 404", here: "same; slashes are added",
			test: testAPIPrefix},
		{name: "api-prefix-kept", what: "`--api-prefix` that begins with `/api`", original: "stays in the path, `/apifoo/` too", here: same, test: testAPIPrefixKept},
		{name: "server-path", what: "path in the kubeconfig's `server`", original: "left out with a warning, unless `--append-server-path`",
			here: "used, unless `--append-server-path=false`", test: testServerPath},
	}
}

func filterRows() []row {
	return []row{
		{name: "hosts", what: "`--accept-hosts`", original: "403 for `[::1]:8001`, `localhost.`, `LOCALHOST`", here: "these are accepted; foreign names are not",
			test: testHosts},
		{name: "lists", what: "`--accept-paths`, `--reject-paths`, `--reject-methods`: order, empty lists, commas, parts", original: "regular expressions, split at each comma",
			here: same, test: testFilterLists},
		{name: "bad-expression", what: "expression that cannot be read", original: "ends, naming no flag", here: "an error that names the flag", test: testBadExpression},
		{name: "refusals", what: "what a refused client gets", original: "403, `Forbidden` as text", here: "403, a Status that names the flag", test: testRefusals},
		{name: "classes", what: "exec, attach; port-forward; exec through nodes", original: "403; served; served", here: "403 each, until `--allow`", test: testClasses},
		{name: "disable-filter", what: "`--disable-filter`", original: "no check at all", here: "same; `--read-only`, `--deny` and the token still hold", test: testDisabled},
		{name: "pages", what: "writes by pages of other sites", original: "served", here: "403; `--accept-origins` names exceptions", test: testPages},
		{name: "page-sockets", what: "WebSockets by pages of other sites", original: "served", here: "403", test: testPageSockets},
		{name: "unclean-paths", what: "`//`, `.` and `..` in paths", original: "307 to the clean path", here: "sent as they are", test: testUncleanPaths},
		{name: "evasion", what: "rejected paths in disguise", original: "most are cleaned first", here: "403 for each form", test: testEvasion},
		{name: "escapes", what: "`%2F` under `--api-prefix`", original: "becomes `/`", here: "is kept", test: testEscapes},
		{name: "connect", what: "CONNECT", original: "404", here: "403", test: testConnect},
	}
}

func passingRows() []row {
	return []row{
		{name: "methods", what: "methods, bodies, HEAD, codes", original: "passed on", here: same, test: testMethods},
		{name: "targets", what: "queries, characters that are unusual, absolute URLs, HTTP/1.0", original: "as they are; what needs it is escaped", here: same,
			test: testTargets},
		{name: "headers", what: "Host, X-Forwarded-For and other headers to the API server", original: "the API server's host; the client's address appended", here: same,
			test: testHeaders},
		{name: "compression", what: "gzip from the API server", original: "asked for and unpacked, unless the client asks or `--disable-compression`", here: same,
			test: testCompression},
		{name: "redirects", what: "redirects of the API server", original: "passed on, not followed", here: same, test: testRedirects},
		{name: "impersonation", what: "`Impersonate-*` of a client", original: "passed on", here: same, test: testImpersonation},
		{name: "authorization", what: "`Authorization` of a client", original: "takes the place of the kubeconfig's", here: "ignored with a warning; `--client-authorization`",
			test: testAuthorization},
		{name: "exec-plugin", what: "credential plugin whose credential has expired", original: "401, and the next request works", here: "no 401: the request is sent again",
			test: testExecPlugin},
		{name: "kubeconfig-edited", what: "kubeconfig that is edited", original: "not seen", here: "used at once; other context within 2 s", test: testKubeconfigEdited},
		{name: "unreachable", what: "API server that is down", original: "500, text", here: "502, a Status that says what to do", test: testUnreachable},
		{name: "tls-failure", what: "API server with another certificate", original: "500, text", here: "502, Status", test: testTLSFailure},
		{name: "timeout", what: "API server that is silent in the TLS handshake", original: "500, text, after 10 s", here: "504, Status, after 10 s", test: testTimeout},
		{name: "cut", what: "answer that the API server cuts", original: "cut; what has come may be lost", here: "cut; what has come is there", test: testCut},
	}
}

func streamRows() []row {
	return []row{
		{name: "watch", what: "watches", original: "each event at once", here: same, test: testWatch},
		{name: "websocket", what: "WebSocket upgrades", original: "passed on", here: same, test: testWebSocket},
		{name: "spdy", what: "SPDY upgrades", original: "passed on; bytes sent with the request are lost", here: "passed on, all bytes", test: testSPDY},
		{name: "upgrade-refused", what: "upgrade that the API server refuses", original: "from 400 on passed on, below that 500", here: "passed on", test: testUpgradeRefused},
		{name: "proxy-url", what: "upgrades with `proxy-url`", original: "go past the proxy", here: "go through it", test: testProxyURL},
		{name: "keepalive", what: "`--keepalive 0`", original: "means 15 s", here: "means none; 15 s if not given", elsewhere: "cluster/keepalive_linux_test.go TestKeepalive"},
		{name: "drain-watch", what: "SIGTERM: watches", original: "cut", here: "end in order", test: testDrainWatch},
		{name: "drain-upgrade", what: "SIGTERM: upgraded connections", original: "cut", here: "may go on for `--drain-timeout`; new connections are refused at once",
			test: testDrainUpgrade},
		{name: "drain-request", what: "SIGTERM: other requests", original: "cut", here: "finish, or 503 after `--drain-timeout`", test: testDrainRequest},
		{name: "header-limit", what: "header of a request", original: "1 MiB, then 431", here: "`--max-header-bytes`, then 431", test: testHeaderLimit},
		{name: "header-timeout", what: "header that does not arrive", original: "waits for ever", here: "`--header-timeout`", test: testHeaderTimeout},
		{name: "body-limit", what: "size of bodies", original: "no limit", here: "`--max-body-bytes`, then 413", test: testBodyLimit},
		{name: "body-timeout", what: "body that does not arrive", original: "waits for ever", here: "`--body-timeout`, then 408", test: testBodyTimeout},
		{name: "idle", what: "connection without a request", original: "kept for ever", here: "`--idle-timeout`", test: testIdle},
		{name: "connections", what: "connections at a time", original: "no limit", here: "`--max-connections`; more wait", test: testConnectionLimit},
		{name: "no-timeout", what: "answers that last", original: "no timeout", here: same, test: testLongAnswers},
	}
}

func furtherRows() []row {
	const none = "none"
	return []row{
		{name: "read-only", what: "`--read-only`, `--deny`", original: none, here: "by verb and resource", test: testReadOnly},
		{name: "token", what: "`--require-token`", original: none, here: "query and cookie, header, or path; the API server never sees it", test: testToken},
		{name: "same-user", what: "other users of this computer", original: "served", here: "403 with `--same-user`", test: testSameUser},
		{name: "contexts", what: "other contexts", original: none, here: "`--contexts`: `/clusters/<context>/`", test: testContexts},
		{name: "services", what: "Services by host name", original: none, here: "`<port>.<service>.<namespace>.svc.localhost`", elsewhere: "origin/origin_test.go TestTunnel"},
		{name: "tls-files", what: "TLS with files", original: none, here: "read again when they change", test: testTLSFiles},
		{name: "tls-self-signed", what: "TLS with a pair of this run", original: none, here: "`--tls-self-signed`", test: testSelfSigned},
		{name: "client-ca", what: "client certificates", original: none, here: "`--tls-client-ca-file`", test: testClientCA},
		{name: "http2", what: "HTTP/2 for clients", original: none, here: "with TLS and without", test: testHTTP2},
		{name: "metrics", what: "metrics and health", original: none, here: "`--metrics-address`", test: testMetrics},
		{name: "access-log", what: "access log", original: "`-v`, as text", here: "`-v 3`, as text or JSON, without tokens", test: testAccessLog},
		{name: "page", what: "start page", original: none, here: "at `/` with `--ui` or `--api-prefix`", test: testPage},
	}
}
