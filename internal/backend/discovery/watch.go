package discovery

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// slicesRetry is the pause before Config.Slices is called again when it returned too soon.
const slicesRetry = 5 * time.Second

// errEnded says that Config.Slices returned without a reason.
var errEnded = errors.New("it ended")

// watch has the EndpointSlices watched until the context ends.
func (d *Discovery) watch(ctx context.Context) {
	changed := func(addrs []netip.AddrPort) { d.say(ctx, answer{from: d.slices, addrs: addrs}) }
	for ctx.Err() == nil {
		err := d.config.Slices(ctx, changed)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errEnded
		}
		d.say(ctx, answer{from: d.slices, err: err})
		sleep(ctx, slicesRetry)
	}
}

func (d *Discovery) say(ctx context.Context, a answer) {
	select {
	case <-ctx.Done():
	case d.answers <- a:
	}
}
