package apiserverlb

import (
	"slices"
	"time"
)

// turn is a client that has come to a server, or whose connection has ended: then server is gone.
type turn struct {
	at     time.Time
	client int
	server int
}

// gone is the number of no server.
const gone = -1

// answer is what came of a request, or of a new connection.
type answer struct {
	began time.Time
	took  time.Duration
	err   error
}

// journal is what the clients of one balancer have seen, each list in the order of what it is of, nearly: many clients write.
type journal struct {
	clients  int // with a connection that stays
	turns    []turn
	probes   []answer
	requests []answer
}

// where is the server of each client at that time.
func (j journal) where(at time.Time) []int {
	out := slices.Repeat([]int{gone}, j.clients)
	for _, t := range j.turns {
		if !t.at.After(at) {
			out[t.client] = t.server
		}
	}
	return out
}

// on are the clients of a server at that time.
func (j journal) on(server int, at time.Time) (out []int) {
	for client, s := range j.where(at) {
		if s == server {
			out = append(out, client)
		}
	}
	return out
}

// moved returns how many clients a server had, and how long it took until the last of them was at another; ok is false if one
// is not there.
func (j journal) moved(server int, since time.Time) (clients int, last time.Duration, ok bool) {
	theirs := j.on(server, since)
	for _, client := range theirs {
		i := slices.IndexFunc(j.turns, func(t turn) bool {
			return t.client == client && t.at.After(since) && t.server != gone && t.server != server
		})
		if i < 0 {
			return len(theirs), 0, false
		}
		last = max(last, j.turns[i].at.Sub(since))
	}
	return len(theirs), last, true
}

// ended are the times at which connections ended.
func (j journal) ended(since, until time.Time) (out []time.Time) {
	for _, t := range j.turns {
		if t.server == gone && t.at.After(since) && !t.at.After(until) {
			out = append(out, t.at)
		}
	}
	return out
}

// clientsEnded is how many clients, of the first so many, have had a connection end.
func (j journal) clientsEnded(first int, since, until time.Time) int {
	which := map[int]bool{}
	for _, t := range j.turns {
		if t.client < first && t.server == gone && t.at.After(since) && !t.at.After(until) {
			which[t.client] = true
		}
	}
	return len(which)
}

// failures returns the share, in percent, of what began in that time and failed, and how long it was from the first of it
// to the last.
func failures(all []answer, since, until time.Time) (percent float64, lasted time.Duration) {
	var first, last time.Time
	count, failed := 0, 0
	for _, a := range all {
		if a.began.Before(since) || !a.began.Before(until) {
			continue
		}
		count++
		if a.err == nil {
			continue
		}
		if failed++; failed == 1 || a.began.Before(first) {
			first = a.began
		}
		if a.began.After(last) {
			last = a.began
		}
	}
	if failed == 0 {
		return 0, 0
	}
	return 100 * float64(failed) / float64(count), last.Sub(first)
}

// highest is the highest rate a second of times over any so long: of a steady rate, one time less than there are.
func highest(times []time.Time, over time.Duration) float64 {
	times = slices.SortedFunc(slices.Values(times), time.Time.Compare)
	steps := 0
	for i, first := 0, 0; i < len(times); i++ {
		for times[i].Sub(times[first]) > over {
			first++
		}
		steps = max(steps, i-first)
	}
	return float64(steps) / over.Seconds()
}

// apart is the largest number of clients of a server less the smallest, in percent of the mean.
func apart(where []int, servers int) float64 {
	counts := make([]int, servers)
	sum := 0
	for _, s := range where {
		if s != gone {
			counts[s]++
			sum++
		}
	}
	if sum == 0 {
		return 0
	}
	return 100 * float64(slices.Max(counts)-slices.Min(counts)) * float64(servers) / float64(sum)
}
