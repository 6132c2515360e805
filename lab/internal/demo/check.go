package demo

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"varco.dev/lab/internal/load"
)

// ending is how requests must end.
type ending int

// The endings.
const (
	answered ending = iota
	refused         // at once
	dropped         // without an answer
)

// source is what pods must see of where requests come from.
type source int

// The sources.
const (
	anySource source = iota
	kept             // the address of whoever asks
	hidden           // another one
)

// want is what must come of requests.
type want struct {
	ending ending
	pods   []string // answered: by all of these, and by no other
	one    bool     // in each IP family all requests are answered by one and the same of the pods
	source source
}

// String says what must come, for the table.
func (w want) String() string {
	switch {
	case w.ending == refused:
		return "refused at once"
	case w.ending == dropped:
		return "no answer"
	case w.one:
		return "always the same pod"
	}
	return count(len(w.pods)) + w.source.String()
}

func count(pods int) string {
	if pods == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", pods)
}

// String is what is added to a text about requests.
func (s source) String() string { return [...]string{"", ", source kept", ", source hidden"}[s] }

// way is one row of the table: requests from one place, by one protocol, to addresses that must all behave alike.
type way struct {
	from     string
	kind     string // of the addresses, such as ClusterIP
	protocol string // as in a load.Config's URL
	to       []netip.AddrPort
	want     want
}

// check is the part of a way that one address is.
type check struct {
	from, protocol string
	to             netip.AddrPort
	want           want
}

func (w way) checks() []check {
	var all []check
	for _, to := range w.to {
		all = append(all, check{w.from, w.protocol, to, w.want})
	}
	return all
}

func (c check) url() string { return c.protocol + "://" + c.to.String() }

// place is where requests are sent from.
type place struct {
	name  string // for people
	addrs []netip.Addr
	dial  load.DialFunc
}

// places are the places to send from, by the plan's words for them.
type places map[string]place

const (
	// servedRequests is how many requests each address of the table stands for. The chance that one of three pods has
	// none of them is one in ten thousand million.
	servedRequests = 60
	// droppedRequests is how many are sent where each takes the whole time that it may, dropTime.
	droppedRequests = 4
	dropTime        = time.Second
)

// config is how requests of a check are sent.
func (p places) config(c check, requests int) load.Config {
	cfg := load.Config{
		URL: c.url(), Dial: p[c.from].dial, Requests: requests, Concurrency: 4, Timeout: 2 * time.Second,
	}
	if c.want.ending == dropped {
		cfg.Requests, cfg.Timeout = min(requests, droppedRequests), dropTime
	}
	return cfg
}

// run sends the requests of a check.
func (p places) run(ctx context.Context, c check) (*load.Report, error) {
	return load.Run(ctx, p.config(c, servedRequests))
}

// awaitTimeout is how long an address may take to answer by all pods. A Service that was just made, and a pod that just
// became ready, are known to each node a moment later.
const awaitTimeout = 20 * time.Second

// await asks until each of the pods has answered, or what else must come has, and tells whether it came to that.
func (p places) await(ctx context.Context, c check) (bool, error) {
	cfg := p.config(c, 1)
	seen := load.NewReport()
	for end := time.Now().Add(awaitTimeout); time.Now().Before(end); {
		r, err := load.Run(ctx, cfg)
		if err != nil {
			return false, err
		}
		fine := r.Requests == 1 && c.want.unexpected(r) == 0
		if !fine {
			seen = load.NewReport() // as it was before a node knew all
		}
		seen.Add(r)
		if fine && (c.want.ending != answered || c.want.one || len(seen.ByPod) == len(c.want.pods)) {
			return true, nil
		}
		wait := 10 * time.Millisecond
		if !fine {
			wait = 100 * time.Millisecond
		}
		if err := pause(ctx, wait); err != nil {
			return false, err
		}
	}
	return false, nil
}

// unexpected is how many requests ended otherwise than they must, or were answered by a pod that must not.
func (w want) unexpected(r *load.Report) int {
	if w.ending == answered {
		wrong := r.Failed
		for pod, n := range r.ByPod {
			if !slices.Contains(w.pods, pod) {
				wrong += n
			}
		}
		return wrong
	}
	text := map[ending]string{refused: "connection refused", dropped: "no answer within " + dropTime.String()}[w.ending]
	wrong := r.Requests
	for e, n := range r.Errors {
		if strings.HasSuffix(e, text) {
			wrong -= n
		}
	}
	return wrong
}

// outcome is what came of a way: a report for each of its addresses.
type outcome struct {
	way
	reports []*load.Report
	self    []netip.Addr // of the place that it was sent from
}

// problems says what is wrong with an outcome.
func (o outcome) problems() []string {
	var all []string
	for i, r := range o.reports {
		if text := o.problem(r); text != "" {
			all = append(all, fmt.Sprintf("%s: %s", o.to[i], text))
		}
	}
	for _, family := range o.families() {
		if pods := slices.Sorted(maps.Keys(family.ByPod)); o.want.one && len(pods) > 1 {
			all = append(all, "answers came from several pods: "+strings.Join(pods, " "))
		}
	}
	return all
}

// problem says what is wrong with the requests to one address, "" if nothing.
func (o outcome) problem(r *load.Report) string {
	w := o.want
	switch {
	case w.unexpected(r) > 0 && r.Failed > 0 && w.ending == answered:
		return strings.Join(r.Failures(), "; ")
	case w.unexpected(r) > 0:
		return strings.Join(append(r.Failures(), answers(r)...), "; ")
	case w.ending != answered || w.one:
		return ""
	case len(r.ByPod) != len(w.pods):
		return fmt.Sprintf("only %d of %s answered", len(r.ByPod), count(len(w.pods)))
	}
	return o.sourceProblem(r)
}

func answers(r *load.Report) []string {
	lines := r.PodLines()
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return lines
}

func (o outcome) sourceProblem(r *load.Report) string {
	for client := range r.ByClient {
		self := slices.ContainsFunc(o.self, func(a netip.Addr) bool { return a.String() == client })
		if o.want.source == kept && !self || o.want.source == hidden && self {
			return "pods saw requests come from " + client
		}
	}
	return ""
}

// families returns the sum of the reports for each IP family that there are addresses of.
func (o outcome) families() []*load.Report {
	sums := map[bool]*load.Report{}
	for i, r := range o.reports {
		is6 := o.to[i].Addr().Is6()
		if sums[is6] == nil {
			sums[is6] = load.NewReport()
		}
		sums[is6].Add(r)
	}
	return slices.Collect(maps.Values(sums))
}

// seen says what came of all requests of a way, for the table.
func (o outcome) seen() string {
	sum := load.NewReport()
	for _, r := range o.reports {
		sum.Add(r)
	}
	good := len(o.problems()) == 0
	switch {
	case good && o.want.ending == answered && o.want.one:
		return fmt.Sprintf("%d answers, 1 pod", sum.Requests)
	case good && o.want.ending == answered:
		return sum.Spread() + o.want.source.String()
	case good:
		return fmt.Sprintf("%d × %s", sum.Requests, o.want)
	}
	return fmt.Sprintf("✗ %d of %d failed, %s", sum.Failed, sum.Requests, sum.Spread())
}
