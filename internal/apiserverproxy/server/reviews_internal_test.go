package server

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestForbiddenReviewsAreTriedAgain has no client ask any more once the server is not ready: it must find out by itself when
// its account has got the permission, or it would never be ready again.
func TestForbiddenReviewsAreTriedAgain(t *testing.T) {
	var forbid atomic.Bool
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if forbid.Load() {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(w, r.Body)
	}))
	defer api.Close()
	config := &rest.Config{Host: api.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	r, err := newReviewer(NewOptions(), config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for which, ask := range map[string]func() error{
		"tokenreviews": func() error {
			_, err := r.authn.AuthenticationV1().TokenReviews().Create(t.Context(), &authnv1.TokenReview{}, metav1.CreateOptions{})
			return err
		},
		"subjectaccessreviews": func() error {
			_, err := r.authz.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authzv1.SubjectAccessReview{}, metav1.CreateOptions{})
			return err
		},
	} {
		forbid.Store(true)
		if err := ask(); err == nil {
			t.Fatal("the review came")
		}
		r.retry(t.Context())
		if err := r.wrong(); err == nil || !strings.Contains(err.Error(), which) {
			t.Errorf("%s: error %v", which, err)
		}
		forbid.Store(false)
		r.retry(t.Context())
		if err := r.wrong(); err != nil {
			t.Errorf("%s: still %v", which, err)
		}
	}
}
