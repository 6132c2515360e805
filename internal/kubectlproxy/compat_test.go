package kubectlproxy_test

import (
	"flag"
	"testing"

	"varco.dev/internal/nettest/compat"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

// TestCompatibility sends the same bytes to kubectl proxy v1.37 and to ours.
func TestCompatibility(t *testing.T) { compat.Run(t, rows()) }

// TestCompatibilityTable compares the table in README.md with the rows; -update rewrites it.
func TestCompatibilityTable(t *testing.T) { compat.Readme(t, "`kubectl proxy` v1.37", rows(), *update) }

func rows() []compat.Row {
	var all []compat.Row
	for _, part := range [][]compat.Row{servingRows(), filterRows(), passingRows(), streamRows(), furtherRows()} {
		all = append(all, part...)
	}
	return all
}

func servingRows() []compat.Row {
	return []compat.Row{
		{Name: "flags", What: "flags and their defaults", Original: "its own, and those of all kubectl commands", Here: "all; `--append-server-path` is on by default",
			Elsewhere: "../cli/kubectlproxy_test.go TestKubectlFlags"},
		{Name: "first-line", What: "first line of output; `--port 0`", Original: "`Starting to serve on 127.0.0.1:8001`, `[::1]:…`, or the socket", Here: compat.Same,
			Test: testFirstLine},
		{Name: "address-without-brackets", What: "`--address ::1`", Original: "\"too many colons in address\"", Here: "serves; brackets may be there or not",
			Test: testAddressWithoutBrackets},
		{Name: "port-taken", What: "port that is taken", Original: "\"address already in use\"", Here: "same, and names `--port`", Test: testPortTaken},
		{Name: "port-and-socket", What: "`--port` and `--unix-socket`", Original: "\"cannot set … at the same time\"", Here: compat.Same, Test: testPortAndSocket},
		{Name: "socket", What: "`--unix-socket`: mode, socket that is left over, end", Original: "0700; replaced; stays behind", Here: "0700; replaced; is removed",
			Test: testSocket},
		{Name: "socket-is-a-file", What: "`--unix-socket` names a file", Original: "refused, file untouched", Here: compat.Same, Test: testSocketFile},
		{Name: "static", What: "`--www`: files, lists of folders, links", Original: "served", Here: compat.Same, Test: testStatic},
		{Name: "static-missing", What: "`--www` names no folder", Original: "a warning", Here: compat.Same, Test: testStaticMissing},
		{Name: "static-filter", What: "`--www` and the filter: hosts, methods, paths, other sites", Original: "not filtered: any page reads the files", Here: "filtered as the API is",
			Test: testStaticFilter},
		{Name: "static-prefix", What: "`--www-prefix` without slashes", Original: "`site` is taken for a host: the path goes to the API", Here: "slashes are added", Test: testStaticPrefix},
		{Name: "api-prefix", What: "`--api-prefix`", Original: "cut off the path; `k8s-api` is taken for a host: 404", Here: "same; slashes are added",
			Test: testAPIPrefix},
		{Name: "api-prefix-kept", What: "`--api-prefix` that begins with `/api`", Original: "stays in the path, `/apifoo/` too", Here: compat.Same, Test: testAPIPrefixKept},
		{Name: "server-path", What: "path in the kubeconfig's `server`", Original: "left out with a warning, unless `--append-server-path`",
			Here: "used, unless `--append-server-path=false`", Test: testServerPath},
	}
}

func filterRows() []compat.Row {
	return []compat.Row{
		{Name: "hosts", What: "`--accept-hosts`", Original: "403 for `[::1]:8001`, `localhost.`, `LOCALHOST`", Here: "these are accepted; foreign names are not",
			Test: testHosts},
		{Name: "lists", What: "`--accept-paths`, `--reject-paths`, `--reject-methods`: order, empty lists, commas, parts", Original: "regular expressions, split at each comma",
			Here: compat.Same, Test: testFilterLists},
		{Name: "bad-expression", What: "expression that cannot be read", Original: "ends, naming no flag", Here: "an error that names the flag", Test: testBadExpression},
		{Name: "refusals", What: "what a refused client gets", Original: "403, `Forbidden` as text", Here: "403, a Status that names the flag", Test: testRefusals},
		{Name: "classes", What: "exec, attach; port-forward; exec through nodes", Original: "403; served; served", Here: "403 each, until `--allow`", Test: testClasses},
		{Name: "disable-filter", What: "`--disable-filter`", Original: "no check at all", Here: "same; `--read-only`, `--deny` and the token still hold", Test: testDisabled},
		{Name: "pages", What: "writes by pages of other sites", Original: "served", Here: "403; `--accept-origins` names exceptions", Test: testPages},
		{Name: "page-sockets", What: "WebSockets by pages of other sites", Original: "served", Here: "403", Test: testPageSockets},
		{Name: "unclean-paths", What: "`//`, `.` and `..` in paths", Original: "307 to the clean path", Here: "sent as they are", Test: testUncleanPaths},
		{Name: "evasion", What: "rejected paths in disguise", Original: "most are cleaned first", Here: "403 for each form", Test: testEvasion},
		{Name: "escapes", What: "`%2F` under `--api-prefix`", Original: "becomes `/`", Here: "is kept", Test: testEscapes},
		{Name: "connect", What: "CONNECT", Original: "404", Here: "403", Test: testConnect},
	}
}

func passingRows() []compat.Row {
	return []compat.Row{
		{Name: "methods", What: "methods, bodies, HEAD, codes", Original: "passed on", Here: compat.Same, Test: testMethods},
		{Name: "targets", What: "queries, characters that are unusual, absolute URLs, HTTP/1.0", Original: "as they are; what needs it is escaped", Here: compat.Same,
			Test: testTargets},
		{Name: "headers", What: "Host, X-Forwarded-For and other headers to the API server", Original: "the API server's host; the client's address appended", Here: compat.Same,
			Test: testHeaders},
		{Name: "compression", What: "gzip from the API server", Original: "asked for and unpacked, unless the client asks or `--disable-compression`", Here: compat.Same,
			Test: testCompression},
		{Name: "redirects", What: "redirects of the API server", Original: "passed on, not followed", Here: compat.Same, Test: testRedirects},
		{Name: "impersonation", What: "`Impersonate-*` of a client", Original: "passed on", Here: compat.Same, Test: testImpersonation},
		{Name: "authorization", What: "`Authorization` of a client", Original: "takes the place of the kubeconfig's", Here: "ignored with a warning; `--client-authorization`",
			Test: testAuthorization},
		{Name: "exec-plugin", What: "credential plugin whose credential has expired", Original: "401, and the next request works", Here: "no 401: the request is sent again",
			Test: testExecPlugin},
		{Name: "kubeconfig-edited", What: "kubeconfig that is edited", Original: "not seen", Here: "used at once; other context within 2 s", Test: testKubeconfigEdited},
		{Name: "unreachable", What: "API server that is down", Original: "500, text", Here: "502, a Status that says what to do", Test: testUnreachable},
		{Name: "tls-failure", What: "API server with another certificate", Original: "500, text", Here: "502, Status", Test: testTLSFailure},
		{Name: "timeout", What: "API server that is silent in the TLS handshake", Original: "500, text, after 10 s", Here: "504, Status, after 10 s", Test: testTimeout},
		{Name: "cut", What: "answer that the API server cuts", Original: "cut; what has come may be lost", Here: "cut; what has come is there", Test: testCut},
	}
}

func streamRows() []compat.Row {
	return []compat.Row{
		{Name: "watch", What: "watches", Original: "each event at once", Here: compat.Same, Test: testWatch},
		{Name: "websocket", What: "WebSocket upgrades", Original: "passed on", Here: compat.Same, Test: testWebSocket},
		{Name: "spdy", What: "SPDY upgrades", Original: "passed on; bytes sent with the request are lost", Here: "passed on, all bytes", Test: testSPDY},
		{Name: "upgrade-refused", What: "upgrade that the API server refuses", Original: "from 400 on passed on, below that 500", Here: "passed on", Test: testUpgradeRefused},
		{Name: "proxy-url", What: "upgrades with `proxy-url`", Original: "go past the proxy", Here: "go through it", Test: testProxyURL},
		{Name: "keepalive", What: "`--keepalive 0`", Original: "means 15 s", Here: "means none; 15 s if not given", Elsewhere: "cluster/keepalive_linux_test.go TestKeepalive"},
		{Name: "drain-watch", What: "SIGTERM: watches", Original: "cut", Here: "end in order", Test: testDrainWatch},
		{Name: "drain-upgrade", What: "SIGTERM: upgraded connections", Original: "cut", Here: "may go on for `--drain-timeout`; new connections are refused at once",
			Test: testDrainUpgrade},
		{Name: "drain-request", What: "SIGTERM: other requests", Original: "cut", Here: "finish, or 503 after `--drain-timeout`", Test: testDrainRequest},
		{Name: "header-limit", What: "header of a request", Original: "1 MiB, then 431", Here: "`--max-header-bytes`, then 431", Test: testHeaderLimit},
		{Name: "header-timeout", What: "header that does not arrive", Original: "waits for ever", Here: "`--header-timeout`", Test: testHeaderTimeout},
		{Name: "body-limit", What: "size of bodies", Original: "no limit", Here: "`--max-body-bytes`, then 413", Test: testBodyLimit},
		{Name: "body-timeout", What: "body that does not arrive", Original: "waits for ever", Here: "`--body-timeout`, then 408", Test: testBodyTimeout},
		{Name: "idle", What: "connection without a request", Original: "kept for ever", Here: "`--idle-timeout`", Test: testIdle},
		{Name: "connections", What: "connections at a time", Original: "no limit", Here: "`--max-connections`; more wait", Test: testConnectionLimit},
		{Name: "no-timeout", What: "answers that last", Original: "no timeout", Here: compat.Same, Test: testLongAnswers},
	}
}

func furtherRows() []compat.Row {
	const none = "none"
	return []compat.Row{
		{Name: "read-only", What: "`--read-only`, `--deny`", Original: none, Here: "by verb and resource", Test: testReadOnly},
		{Name: "token", What: "`--require-token`", Original: none, Here: "query and cookie, header, or path; the API server never sees it", Test: testToken},
		{Name: "same-user", What: "other users of this computer", Original: "served", Here: "403 with `--same-user`", Test: testSameUser},
		{Name: "contexts", What: "other contexts", Original: none, Here: "`--contexts`: `/clusters/<context>/`", Test: testContexts},
		{Name: "services", What: "Services by host name", Original: none, Here: "`<port>.<service>.<namespace>.svc.localhost`", Elsewhere: "origin/origin_test.go TestTunnel"},
		{Name: "tls-files", What: "TLS with files", Original: none, Here: "read again when they change", Test: testTLSFiles},
		{Name: "tls-self-signed", What: "TLS with a pair of this run", Original: none, Here: "`--tls-self-signed`", Test: testSelfSigned},
		{Name: "client-ca", What: "client certificates", Original: none, Here: "`--tls-client-ca-file`", Test: testClientCA},
		{Name: "http2", What: "HTTP/2 for clients", Original: none, Here: "with TLS and without", Test: testHTTP2},
		{Name: "metrics", What: "metrics and health", Original: none, Here: "`--metrics-address`", Test: testMetrics},
		{Name: "access-log", What: "access log", Original: "`-v`, as text", Here: "`-v 3`, as text or JSON, without tokens", Test: testAccessLog},
		{Name: "page", What: "start page", Original: none, Here: "at `/` with `--ui` or `--api-prefix`", Test: testPage},
	}
}
