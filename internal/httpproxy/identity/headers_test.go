package identity_test

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/user"

	"varco.dev/internal/httpproxy/identity"
)

var custom = identity.Headers{
	Users: []string{"X-Who", "X-Remote-User"}, UIDs: []string{"X-Who-Uid"}, Groups: []string{"X-Team"}, ExtraPrefixes: []string{"X-More-"},
}

func TestStripRemovesIdentitiesInAllSpellings(t *testing.T) {
	gone := []string{
		"X-Remote-User", "x-remote-user", "X-REMOTE-USER", "x-rEmOtE-uSeR", "X_Remote_User", "X-Remote_User", "X-Remote-Uid", "X-Remote-UID",
		"X-Remote-Group", "x-remote-group", "X_REMOTE_GROUP", "X-Remote-Extra-Scopes", "x-remote-extra-", "X-Remote-Extra-a%2fb", "X_Remote_Extra_Key",
		"X-Who", "x-who", "X_Who", "X-Who-Uid", "X-Team", "X-More-Things", "x_more_things",
	}
	stay := []string{
		"X-Remote-Users", "X-Remote", "X-Remote-Addr", "X-Remote-Extra", "Impersonate-User", "Impersonate-Group", "Impersonate-Extra-Scopes",
		"Authorization", "X-Whoever", "X-Teams", "X-Forwarded-For", "", "X",
	}
	header := http.Header{}
	for _, key := range slices.Concat(gone, stay) {
		header[key] = []string{"one", "two"}
	}
	custom.Strip(header)
	if diff := cmp.Diff(slices.Sorted(slices.Values(stay)), slices.Sorted(maps.Keys(header))); diff != "" {
		t.Errorf("fields that stay (-want +got):\n%s", diff)
	}
}

func TestZeroHeadersStripTheDefaultOnes(t *testing.T) {
	header := http.Header{"X-Remote-User": {"a"}, "X-Remote-Extra-B": {"c"}, "Accept": {"d"}}
	identity.Headers{}.Strip(header)
	if diff := cmp.Diff(http.Header{"Accept": {"d"}}, header); diff != "" {
		t.Error(diff)
	}
}

// TestKubernetesReadsWhatIsSet sends identities through the API server's own authenticator.
func TestKubernetesReadsWhatIsSet(t *testing.T) {
	for _, headers := range []identity.Headers{identity.Default(), custom} {
		reader, err := headerrequest.New(headers.Users, headers.UIDs, headers.Groups, headers.ExtraPrefixes)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []*user.DefaultInfo{
			{Name: "alice", Groups: []string{}, Extra: map[string][]string{}},
			{Name: "system:node:a", UID: "12-34", Groups: []string{"system:nodes", "a,b", "ä ö"}, Extra: map[string][]string{}},
			{Name: "x", Groups: []string{}, Extra: map[string][]string{
				"authentication.kubernetes.io/credential-id": {"X509SHA256=00ff"}, "scopes": {"a", "b", ""}, "Capital": {"c"}, "per%cent": {"d"},
				"ümlaut with space": {"e"}, "": {"f"}, "a:b=c/d\n": {"g"}, "100%2F": {"h"},
			}},
		} {
			header := http.Header{"X-Remote-User": {"mallory"}, "X_remote_group": {"system:masters"}, "X-Remote-Extra-Scopes": {"all"}}
			if err := headers.Set(header, want); err != nil {
				t.Fatalf("%+v: %v", want, err)
			}
			got, ok, err := reader.AuthenticateRequest(&http.Request{Header: wire(t, header)})
			if err != nil || !ok {
				t.Fatalf("%+v: authenticated %v, error %v", want, ok, err)
			}
			if diff := cmp.Diff(want, got.User); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
}

// wire returns a header as net/http's server reads it.
func wire(t *testing.T, header http.Header) http.Header {
	t.Helper()
	var b strings.Builder
	b.WriteString("GET / HTTP/1.1\r\nHost: a\r\n")
	if err := header.Write(&b); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
	if err != nil {
		t.Fatalf("%v in %q", err, b.String())
	}
	return r.Header
}

func TestSetRefusesWhatHTTPWouldChange(t *testing.T) {
	for _, u := range []*user.DefaultInfo{
		{}, {Name: " alice"}, {Name: "alice\t"}, {Name: "a\r\nX-Remote-Group: system:masters"}, {Name: "a\x00"},
		{Name: "a", UID: "1 "}, {Name: "a", Groups: []string{"b", " system:masters"}}, {Name: "a", Groups: []string{"system:masters\t"}},
		{Name: "a", Extra: map[string][]string{"k": {" v"}}}, {Name: "a", Extra: map[string][]string{"k": {"v\nw"}}},
	} {
		header := http.Header{"X-Remote-User": {"mallory"}}
		if err := identity.Default().Set(header, u); err == nil {
			t.Errorf("%+v was taken: %v", u, header)
		}
		if len(header) > 0 {
			t.Errorf("%+v: after an error there is %v", u, header)
		}
	}
	if err := (identity.Headers{}).Set(http.Header{}, &user.DefaultInfo{Name: "a"}); err == nil {
		t.Error("an identity was carried without a header for it")
	}
}

func TestSetLeavesOutWhatHasNoName(t *testing.T) {
	header := http.Header{}
	only := identity.Headers{Users: []string{"x-remote-user"}}
	if err := only.Set(header, &user.DefaultInfo{Name: "a", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(http.Header{"X-Remote-User": {"a"}}, header); diff != "" {
		t.Error(diff)
	}
}

func FuzzExtraKeys(f *testing.F) {
	for _, key := range []string{"", "a", "A%", "ä", "\x00\r\n", "a/b"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		header := http.Header{}
		if err := identity.Default().Set(header, &user.DefaultInfo{Name: "a", Extra: map[string][]string{key: {"v"}}}); err != nil {
			t.Fatal(err)
		}
		names := identity.Default()
		reader, err := headerrequest.New(names.Users, names.UIDs, names.Groups, names.ExtraPrefixes)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := reader.AuthenticateRequest(&http.Request{Header: wire(t, header)})
		if err != nil || fmt.Sprint(got.User.GetExtra()) != fmt.Sprint(map[string][]string{key: {"v"}}) {
			t.Errorf("%q came back as %q, error %v", key, got.User.GetExtra(), err)
		}
	})
}

func BenchmarkStrip(b *testing.B) {
	header := http.Header{}
	for i := range 15 {
		header[fmt.Sprintf("X-Field-%d", i)] = []string{"v"}
	}
	h := identity.Default()
	for b.Loop() {
		h.Strip(header)
	}
}
