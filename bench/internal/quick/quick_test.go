package quick_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"varco.dev/bench/internal/quick"
)

type plan struct {
	Rounds int
	Sizes  []int
	Groups []string
	Pause  time.Duration
	Fixed  int // without a flag
}

func TestOver(t *testing.T) {
	short := plan{Rounds: 1, Sizes: []int{10}, Pause: time.Second, Fixed: 1}
	for _, c := range []struct {
		args []string
		want plan
	}{
		{nil, short},
		{[]string{"--rounds=9"}, plan{Rounds: 9, Sizes: []int{10}, Pause: time.Second, Fixed: 1}},
		{[]string{"--sizes=3,4", "--sizes=5"}, plan{Rounds: 1, Sizes: []int{3, 4, 5}, Pause: time.Second, Fixed: 1}},
		{[]string{"--groups=a,b", "--pause=1m"}, plan{Rounds: 1, Sizes: []int{10}, Groups: []string{"a", "b"}, Pause: time.Minute, Fixed: 1}},
	} {
		p := plan{Rounds: 5, Sizes: []int{100, 200}, Pause: time.Hour, Fixed: 5}
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		flags.IntVar(&p.Rounds, "rounds", p.Rounds, "")
		flags.IntSliceVar(&p.Sizes, "sizes", p.Sizes, "")
		flags.StringSliceVar(&p.Groups, "groups", []string{"a", "b", "c"}, "")
		flags.DurationVar(&p.Pause, "pause", p.Pause, "")
		if err := flags.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		if err := quick.Over(flags, &p, short); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, p); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.args, diff)
		}
	}
}
