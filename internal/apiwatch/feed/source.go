package feed

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"k8s.io/client-go/kubernetes"
)

// askTimeout bounds the question why there is no list yet.
const askTimeout = 5 * time.Second

// Source is an API server, and what is noted of it.
type Source struct {
	Client  kubernetes.Interface
	Log     *slog.Logger
	Contact *Contact
	Seen    func(kind string) // optional: told of each object that is listed, changes or goes, before it is handed on
}

// NewSource returns the source of a client.
func NewSource(client kubernetes.Interface, log *slog.Logger) *Source {
	return &Source{Client: client, Log: log, Contact: NewContact(log)}
}

func (s *Source) seen(kind string) {
	if s.Seen != nil {
		s.Seen(kind)
	}
}

// Reason says why there is no list yet. It may take some seconds.
func (s *Source) Reason(ctx context.Context) error {
	if err := s.Contact.LastError(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := s.Client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err != nil {
		return err
	}
	return errors.New("it answers, but not with these lists")
}
