package vouch

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestKindOf(t *testing.T) {
	for target, want := range map[string]Kind{
		"/api/v1/pods?watch=true": Watching, "/api/v1/pods?watch": Watching, "/api/v1/watch/pods": Watching, "/api/v1/pods": Ordinary, "/version?watch=1": Ordinary,
		"/api/v1/namespaces/a/pods/b/log?follow": Following, "/api/v1/namespaces/a/pods/b/log?follow=true": Following, "/api/v1/namespaces/a/pods/b/log?follow=0": Ordinary,
		"/api/v1/namespaces/a/pods/b/log": Ordinary, "/apis/x/v1/pods/b/exec?follow=true": Ordinary,
	} {
		if got := kindOf(NewInfos(), httptest.NewRequest(http.MethodGet, target, nil)); got != want {
			t.Errorf("%s is of kind %v", target, got)
		}
	}
}
