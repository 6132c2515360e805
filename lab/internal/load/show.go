package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Show sends one request, as Run does, and prints what came back.
func Show(ctx context.Context, cfg Config, out io.Writer) error {
	cfg = cfg.withDefaults()
	open, err := opener(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	s := open()
	defer s.close()
	if h, ok := s.(*httpSession); ok {
		return h.show(ctx, out)
	}
	if _, err := s.ask(ctx); err != nil {
		return err
	}
	_, err = io.WriteString(out, s.(*socketSession).line)
	return err
}

func (s *httpSession) show(ctx context.Context, out io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Fprintln(out, resp.Proto, resp.Status)
	if _, err = io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}
