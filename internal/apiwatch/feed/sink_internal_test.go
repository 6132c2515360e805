package feed

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/service"
)

// TestComplaints hands on objects that say what is wrong with them: the log has it once while it is the same.
func TestComplaints(t *testing.T) {
	var log bytes.Buffer
	s := NewSink(NewSource(nil, slog.New(slog.NewTextHandler(&log, nil))), "Pod", func(p *corev1.Pod) (string, bool, []error) {
		if p.Status.Message == "" {
			return "", true, nil
		}
		return "", true, []error{errors.New(p.Status.Message)}
	})
	s.Set, s.Del = func(service.Name, string) {}, func(service.Name) {}
	object := func(name, message string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Status: corev1.PodStatus{Message: message}}
	}
	for i, c := range []struct {
		name, message string
		gone          bool
		want          int // lines in the log
	}{
		{"a", "tea", false, 1},
		{"a", "tea", false, 1},
		{"b", "tea", false, 2},
		{"a", "milk", false, 3},
		{"a", "", false, 3},
		{"a", "milk", false, 4},
		{"a", "milk", true, 4},
		{"a", "milk", false, 5},
	} {
		if c.gone {
			s.Store().Delete(object(c.name, c.message))
		} else {
			s.Store().Add(object(c.name, c.message))
		}
		if got := strings.Count(log.String(), "\n"); got != c.want {
			t.Errorf("step %d: %d lines, want %d", i, got, c.want)
		}
	}
	for i := range 3 * maxComplaints {
		s.Store().Add(object(fmt.Sprint(i), strings.Repeat("tea", maxComplaint)))
	}
	if n := len(s.complaints); n > maxComplaints {
		t.Errorf("remembers %d", n)
	}
}
