package apiserverproxy_test

import (
	"testing"

	"varco.dev/internal/nettest/compat"
)

// row is a row whose test is here.
func row(name, what, original, here string, test func(*testing.T)) compat.Row {
	return compat.Row{Name: name, What: what, Original: original, Here: here, Test: test}
}

// rows are what the original does, in the order of the documentation: the request, the answer, streams, errors.
// elsewhere is a row whose test is in another file.
func elsewhere(name, what, original, here, test string) compat.Row {
	return compat.Row{Name: name, What: what, Original: original, Here: here, Elsewhere: test}
}

func rows() []compat.Row {
	return []compat.Row{
		row("bare-get", "GET and HEAD on a bare `…/proxy`", "301 to `…/proxy/`, with the query", compat.Same, testBareGet),
		row("bare-post", "other methods on a bare `…/proxy`", "reach `/` of the target", compat.Same, testBarePost),
		row("methods", "methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS reach the target with their bodies", compat.Same, testMethods),
		row("dry-run", "`?dryRun=` anywhere in the query", "400 \"dryRun is not supported\"", compat.Same, testDryRun),
		row("query", "the query", "passes as it is", compat.Same, testQuery),
		row("trailing-slash", "a slash at the end of the path", "stays", compat.Same, testTrailingSlash),
		row("raw-path", "`%2F`, `//`, `.` and `..` in the path", "decoded and cleaned: another resource is asked for (k/k#14193)", "as they were sent", testRawPath),
		row("host", "Host", "the client's", compat.Same, testHost),
		row("header", "Cookie, Origin, User-Agent, Accept-Encoding", "pass", compat.Same, testHeader),
		row("compression", "a client that says nothing about encodings", "the target is asked for gzip, which is unpacked", "the target is asked for what the client asks for", testCompression),
		row("authorization", "Authorization for the target", "none: it is the API server's (k/k#38775)", "what `X-Backend-Authorization` says", testAuthorization),
		row("impersonation", "`X-Remote-*`, `Impersonate-*`", "removed where the server uses them", "none of them reaches a target, in any spelling", testIdentityHeaders),
		row("forwarded-for", "X-Forwarded-For", "the client's address is added", compat.Same, testForwardedFor),
		row("forwarded", "X-Forwarded-Host, -Proto, -Prefix", "what the client says", "set: what the client has asked for, where, and below which path", testForwarded),
		row("cors", "Access-Control-Allow-* of the target", "the four of credentials, headers, methods and origin are removed", compat.Same, testCORS),
		row("for-the-host", "Alt-Svc, Clear-Site-Data, NEL, Report-To, Strict-Transport-Security of a target", "pass, and mean the API server", "are removed", testForTheHost),
		row("location", "Location", "moved below the prefix if it is of the same host or has none; others pass; not followed", compat.Same, testLocation),
		row("location-broken", "a Location that is none", "500", compat.Same, testBrokenLocation),
		row("html", "links in HTML", "moved below the prefix", compat.Same, testHTML),
		row("html-br", "HTML in br or zstd", "lost: the answer has no body (k/k#124194)", "moved as well", testHTMLBrotli),
		row("html-head", "HEAD of HTML in gzip", "500", "200, as the target has it", testHTMLHead),
		row("html-range", "a part of an HTML page (206)", "rewritten: no longer the bytes that were asked for", "as it is", testHTMLRange),
		row("html-stream", "an HTML page that is still being written", "shown when it is complete", "shown as it comes", testHTMLStream),
		row("cookie-path", "Path of Set-Cookie", "as the target says: the cookie is never sent again", "below the prefix", testCookiePath),
		row("grpc", "HTTP/2 without TLS to the target (appProtocol `kubernetes.io/h2c`), trailers", "not possible (kubectl#785)", "spoken", testH2C),
		row("named-port", "a pod's port by name", "dials the name: an error", "is found", testNamedPort),
		row("only-port", "a Service's only port, if it has a name and the URL none", "503 (k/k#20070)", "is taken", testOnlyPort),
		row("app-protocol", "scheme, if the URL has none", "http", "by `appProtocol`, else the port's name, else http", testAppProtocol),
		row("upgrade", "upgrades", "after a true 101 the bytes pass both ways", compat.Same, testUpgrade),
		row("upgrade-query", "the query of an upgrade", "lost", "passes as it is; commands through a node need `create` for it", testUpgradeQuery),
		row("upgrade-refused", "an upgrade that the target answers with 400 or more", "that answer", compat.Same, testUpgradeRefused),
		row("upgrade-ignored", "an upgrade that the target answers with less than 400", "500 \"invalid upgrade response\": nothing of it is handed on, no pipe is left (CVE-2018-1002105)", compat.Same, testUpgradeIgnored),
		row("upgrade-unreachable", "an upgrade to a target that is not there", "500 \"error dialing backend: …\"", compat.Same, testUpgradeUnreachable),
		row("half-close", "an upgraded connection of which one side has said all", "both are cut", "the other side can go on", testHalfClose),
		row("upgrade-h2c", "a wish for HTTP/2 (`Upgrade: h2c`)", "500: taken for an upgrade that failed", "ignored, as by most servers", testUpgradeH2C),
		row("unreachable", "a target that is not there", "503 \"error trying to reach service: …\"", compat.Same, testUnreachable),
		row("errors", "errors", "a Status in JSON, YAML or protobuf as the client accepts, without Retry-After", compat.Same, testErrorEncodings),
		elsewhere("old-paths", "`/api/v1/proxy/…` and `/api/v1/redirect/…`, gone since 1.10", "403 or 404", "410, with the URL of today", "handler_test.go TestGone"),
		elsewhere("escapes-before", "escaped letters or slashes before `/proxy`", "decoded first", "400: no two readings of what was authorized", "address/parse_test.go TestParseWrong"),
		elsewhere("other-protocols", "UDP and SCTP ports", "tried by TCP if they have the name", "are none", "locate/service_test.go TestServiceOtherProtocols"),
		elsewhere("versions", "HTTP versions to https targets", "HTTP/2 if the target has it", "HTTP/1.1, which is faster here; HTTP/2 for gRPC, and for targets with no other", "outbound/transport_test.go TestVersions"),
		elsewhere("admission", "admission, in an API server", "policies see the path", "the same, and of dot segments what is left of them", "handler_test.go TestAdmissionPath"),
	}
}
