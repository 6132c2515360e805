package apiserverproxy

import "sync"

// limits counts what is open for each key, and bounds it. It holds nothing for keys with nothing open.
type limits struct {
	most int // below 0: no limit

	mu   sync.Mutex // guards open
	open map[string]int
}

func newLimits(most int) *limits { return &limits{most: most, open: map[string]int{}} }

// enter counts one in, unless there are too many.
func (l *limits) enter(key string) bool {
	if l.most < 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[key] >= l.most {
		return false
	}
	l.open[key]++
	return true
}

// leave counts one out that was let in.
func (l *limits) leave(key string) {
	if l.most < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[key]--; l.open[key] == 0 {
		delete(l.open, key)
	}
}
