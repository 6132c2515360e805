package health_test

import (
	"errors"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/kubeproxy/health"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

func TestEligible(t *testing.T) {
	for name, c := range map[string]struct {
		node apiwatch.Node
		want bool
	}{
		"none":       {apiwatch.Node{}, false},
		"plain":      {apiwatch.Node{Exists: true}, true},
		"deleting":   {apiwatch.Node{Exists: true, Deleting: true}, false},
		"autoscaler": {apiwatch.Node{Exists: true, Taints: []string{"a", "ToBeDeletedByClusterAutoscaler"}}, false},
		"tainted":    {apiwatch.Node{Exists: true, Taints: []string{"DeletionCandidateOfClusterAutoscaler"}}, true},
	} {
		if got := health.Eligible(c.node); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// TestAnswers asks at 2000-01-01 00:10:00 UTC, which is ten minutes after the fake clock's start.
func TestAnswers(t *testing.T) {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	synced := reconcile.Health{Synced: true, LastSuccess: start.Add(time.Minute)}
	waits := func(h reconcile.Health, since time.Duration) reconcile.Health {
		h.PendingFrom = start.Add(10*time.Minute - since)
		return h
	}
	const (
		now    = `"2000-01-01T00:10:00Z"`
		last   = `"2000-01-01T00:01:00Z"`
		good   = `"status":{"IPv4":{"lastUpdated":` + last + `,"healthy":true},"IPv6":{"lastUpdated":` + last + `,"healthy":true}}}`
		bad    = `"status":{"IPv4":{"lastUpdated":` + last + `,"healthy":false},"IPv6":{"lastUpdated":` + last + `,"healthy":false}}}`
		notYet = "not all Services are applied yet"
	)
	for _, c := range []struct {
		name     string
		state    reconcile.Health
		eligible bool
		path     string
		code     int
		want     string
	}{
		{"all is well", synced, true, "/healthz", 200, `{"lastUpdated":` + now + `,"currentTime":` + now + `,"nodeEligible":true,"healthy":true,` + good},
		{"all is well", synced, true, "/livez", 200, `{"lastUpdated":` + now + `,"currentTime":` + now + `,"healthy":true,` + good},
		{"all is well", synced, true, "/readyz", 200, "ok\n"},
		{"a young change", waits(synced, 59*time.Second), true, "/livez", 200, `{"lastUpdated":` + now + `,"currentTime":` + now + `,"healthy":true,` + good},
		{"a change of a minute", waits(synced, time.Minute), true, "/healthz", 503, `{"lastUpdated":` + last + `,"currentTime":` + now + `,"nodeEligible":true,"healthy":false,` + bad},
		{"a change of a minute", waits(synced, time.Minute), true, "/livez", 503, `{"lastUpdated":` + last + `,"currentTime":` + now + `,"healthy":false,` + bad},
		{"the node goes", synced, false, "/healthz", 503, `{"lastUpdated":` + last + `,"currentTime":` + now + `,"nodeEligible":false,"healthy":true,` + good},
		{"the node goes", synced, false, "/livez", 200, `{"lastUpdated":` + now + `,"currentTime":` + now + `,"healthy":true,` + good},
		{"at the start", reconcile.Health{}, true, "/healthz", 200, `{"lastUpdated":` + now + `,"currentTime":` + now + `,"nodeEligible":true,"healthy":true}`},
		{"at the start", reconcile.Health{}, true, "/readyz", 503, notYet + "\n"},
		{"the first apply fails", waits(reconcile.Health{Err: errors.New("no space")}, time.Hour), true, "/livez", 503,
			`{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":` + now + `,"healthy":false}`},
		{"the first apply fails", reconcile.Health{Err: errors.New("no space")}, true, "/readyz", 503, notYet + "\nno space\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(10 * time.Minute) // of the fake clock
			var told int
			p := health.NewProxy(health.Config{
				State:    func() reconcile.Health { return c.state },
				Families: []service.Family{service.IPv4, service.IPv6},
				Eligible: func() bool { return c.eligible },
				Answered: func(path string, code int) {
					if path == c.path {
						told = code
					}
				},
			})
			w := httptest.NewRecorder()
			p.Handler().ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
			got := w.Body.String()
			if diff := cmp.Diff(c.want, got); diff != "" || w.Code != c.code {
				t.Errorf("%s, %s: got %d, -want +got:\n%s", c.name, c.path, w.Code, diff)
			}
			if c.path != "/readyz" && told != c.code {
				t.Errorf("%s, %s: told of code %d", c.name, c.path, told)
			}
			if c.path == "/livez" && (p.Healthy() != (c.code == 200) || w.Header().Get("Content-Type") != "application/json") {
				t.Errorf("%s: Healthy is %v, the header %v", c.name, p.Healthy(), w.Header())
			}
		})
	}
}
