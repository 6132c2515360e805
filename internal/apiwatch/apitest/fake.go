package apitest

import (
	"slices"
	"testing"
	"time"

	clienttesting "k8s.io/client-go/testing"
)

// AwaitWatches waits until a fake client was asked to watch each of the resources, in its actions from the given one on. The
// watches are open then. A fake client tells a watch nothing of what changed between its list and itself, so a change made
// sooner may never be seen. It fails the test after 30 seconds.
func AwaitWatches(t testing.TB, client *clienttesting.Fake, from int, resources ...string) {
	t.Helper()
	missing := resources
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		missing = slices.Clone(resources)
		for _, a := range client.Actions()[from:] {
			if a.GetVerb() == "watch" {
				missing = slices.DeleteFunc(missing, func(r string) bool { return r == a.GetResource().Resource })
			}
		}
		if len(missing) == 0 {
			return
		}
		time.Sleep(time.Millisecond) // a fake client gives no sign of being asked
	}
	t.Fatalf("the client was not asked to watch %v", missing)
}
