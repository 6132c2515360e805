package outbound

import "net/netip"

// NewLoose is New with targets on loopback, where tests have theirs.
func NewLoose(config Config) (*Outbound, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	return guarded(config, func(to netip.AddrPort) bool { return to.Addr().IsLoopback() })
}

// MaxProfiles is how many profiles are remembered.
const MaxProfiles = maxProfiles

// Profiles returns how many are.
func (o *Outbound) Profiles() int { return len(o.profiles) }

// Sentence is what a RefusedError says for the reason.
func (r Reason) Sentence() string { return r.sentence() }
