package guard_test

import (
	"testing"

	"varco.dev/internal/kubectlproxy/guard"
)

func TestReadOnly(t *testing.T) {
	tests := []struct {
		line    string
		headers []string
		want    string
	}{
		{"GET /api/v1/pods", nil, ""},
		{"HEAD /api/v1/pods", nil, ""},
		{"OPTIONS /api/v1/pods", nil, ""},
		{"GET /api/v1/pods?watch=true", nil, ""},
		{"GET /api/v1/watch/pods", nil, ""},
		{"GET /api/v1/namespaces/a/pods/b/log?follow=true", nil, ""},
		{"GET /api/v1/namespaces/a/services/b/proxy/", nil, ""},
		{"GET /version", nil, ""},
		{"GET /k8s/clusters/one/api/v1/pods", nil, ""},
		{"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", nil, ""},
		{"POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews", nil, ""},
		{"POST /apis/authentication.k8s.io/v1/selfsubjectreviews", nil, ""},
		{"GET /api/v1/pods?watch=true", upgrade(), ""},
		{"GET /api/v1/watch/pods", upgrade(), ""},

		{"POST /api/v1/namespaces/a/pods", nil, "read-only"},
		{"PUT /api/v1/namespaces/a/pods/b", nil, "read-only"},
		{"PATCH /api/v1/namespaces/a/pods/b", nil, "read-only"},
		{"DELETE /api/v1/namespaces/a/pods/b", nil, "read-only"},
		{"DELETE /api/v1/namespaces/a/pods", nil, "read-only"},
		{"DELETE /api/v1/watch/namespaces/a/pods", nil, "read-only"}, // RequestInfo calls it a watch
		{"POST /api/v1/watch/namespaces/a/pods", nil, "read-only"},
		{"GET /api/v1/proxy/namespaces/a/pods/b", nil, "read-only"},
		{"DELETE /api/v1/watch/namespaces/a/pods", upgrade(), "read-only"},
		{"LOOK /api/v1/pods", nil, "read-only"},
		{"TRACE /version", nil, "read-only"},
		{"POST /version", nil, "read-only"},
		{"POST /k8s/clusters/one/api/v1/namespaces", nil, "read-only"},
		{"POST /apis/authorization.k8s.io/v1/subjectaccessreviews", nil, "read-only"},
		{"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews/a", nil, "read-only"},
		{"POST /apis/authorization.k8s.io/v1/namespaces/a/selfsubjectaccessreviews", nil, "read-only"},
		{"POST /apis/example.com/v1/selfsubjectaccessreviews", nil, "read-only"},
		{"POST /apis/authorization.k8s.io/v1/x/../selfsubjectaccessreviews", nil, "read-only"},
		{"POST /apis/authorization.k8s.io/v1/x/..%2Fselfsubjectaccessreviews", nil, "read-only"},
		{"GET /api/v1/namespaces/a/pods/b/exec", nil, "read-only"},
		{"GET /api/v1/namespaces/a/pods/b/attach?watch=true", upgrade(), "read-only"},
		{"GET /api/v1/watch/namespaces/a/pods/b/exec", upgrade(), "read-only"},
		{"GET /api/v1/namespaces/a/pods/b/portforward", upgrade(), "read-only"},
		{"GET /api/v1/namespaces/a/pods/b/log", upgrade(), "read-only"},
		{"GET /api/v1/namespaces/a/services/b/proxy/?watch=true", upgrade(), "read-only"},
		{"GET /api/v1/pods", upgrade(), "read-only"},
		{"GET /api/v1/pods?watch=false", upgrade(), "read-only"},
		{"GET /api/v1/pods", []string{"Upgrade: websocket"}, "read-only"},
		{"GET /version?watch=true", upgrade(), "read-only"},
		{"OPTIONS /api/v1/pods?watch=true", upgrade(), "read-only"},
		{"GET /api/v1/pods%2Fx", nil, ""},
		{"GET /api/v1/pods%252Fx", nil, "read-only"},
		{"GET /../other/api", nil, "read-only"},
	}
	g := mustNew(t, with(func(c *guard.Config) {
		c.ReadOnly, c.RejectPaths, c.Allow = true, "", []string{"exec", "attach", "portforward"}
	}))
	off := mustNew(t, with(func(c *guard.Config) { c.ReadOnly, c.Disabled = true, true }))
	for _, tt := range tests {
		for _, g := range []*guard.Guard{g, off} {
			if got := ask(t, g, request(tt.line, tt.headers...), guard.API); got != tt.want {
				t.Errorf("%s %q: refused by %q, want %q", tt.line, tt.headers, got, tt.want)
			}
		}
	}
}

func TestReadOnlyElsewhere(t *testing.T) {
	g := mustNew(t, with(func(c *guard.Config) { c.ReadOnly = true }))
	tests := []struct {
		line    string
		headers []string
		want    string
	}{
		{"GET /", nil, ""}, {"HEAD /", nil, ""}, {"OPTIONS /", nil, ""},
		{"POST /", nil, "read-only"}, {"DELETE /", nil, "read-only"}, {"GET /socket?watch=true", upgrade(), "read-only"},
	}
	for _, tt := range tests {
		for _, place := range []guard.Place{guard.Static, guard.Page, guard.Service} {
			r := request(tt.line, tt.headers...)
			if got := ask(t, g, r, place); got != tt.want {
				t.Errorf("%s %q at place %d: refused by %q, want %q", tt.line, tt.headers, place, got, tt.want)
			}
		}
	}
}

func TestLongRunning(t *testing.T) {
	const logs = "/api/v1/namespaces/a/pods/b/log"
	tests := []struct {
		line string
		want bool
	}{
		{"/api/v1/pods?watch=true", true}, {"/api/v1/pods?watch=1", true}, {"/api/v1/pods?watch", true}, {"/api/v1/pods?%77atch=true", true},
		{"/apis/apps/v1/deployments?limit=5&watch=true", true}, {"/api/v1/watch/pods", true}, {"/api/v1/watch/namespaces/a/pods/b", true},
		{"/api/v1/namespaces/a/pods?watch=true&fieldSelector=metadata.name%3Db", true},
		{logs + "?follow=true", true}, {logs + "?follow", true}, {logs + "?follow=1", true},
		{logs + "?follow=false", false}, {logs + "?follow=False", false}, {logs + "?follow=0", false}, {logs, false},
		{"/api/v1/pods", false}, {"/api/v1/pods?watch=false", false}, {"/api/v1/namespaces/a/pods/b?watch=true", false},
		{"POST /api/v1/namespaces/a/pods?watch=true", false}, {"POST " + logs + "?follow=true", false}, {"/version?watch=true", false},
		{"/api/v1/namespaces/a/services/b/proxy/watch/x?watch=true", false}, {"/api/v1/watch", false},
	}
	for _, tt := range tests {
		r := request(tt.line)
		if got := guard.LongRunning(r, r.URL.EscapedPath()); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.line, got, tt.want)
		}
	}
}
