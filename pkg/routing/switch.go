package routing

import "time"

// Switch decides whether messages take the failover broker instead of the broker itself. manager-api and the members of
// an exchange decide by the same rule, each by what it sees itself. They need not agree at every moment, because both
// consume from both brokers at all times.
//
//   - Messages take the failover once the broker has been away for After and the failover is open.
//   - They go back once the broker has been open again for Back without a break, or at once if the failover is away.
//
// The zero Switch with both times set is ready for use. It is not safe for concurrent use.
type Switch struct {
	After time.Duration // how long the broker must be away; its addresses are dialled many times meanwhile
	Back  time.Duration // the dwell: a broker that flaps must not make messages flap

	diverted bool
	open     bool
	since    time.Time // since when the broker is open, or is not; zero before the first look
}

// Look tells the Switch what is so now, and returns what follows: whether messages take the failover, and after how
// long to look again although nothing has changed (0: only a change can matter).
func (s *Switch) Look(primary, failover bool, now time.Time) (diverted bool, again time.Duration) {
	if s.since.IsZero() || primary != s.open {
		s.open, s.since = primary, now
	}
	limit := s.After
	if s.diverted {
		limit = s.Back
	}
	left := limit - now.Sub(s.since)
	switch {
	case s.diverted && primary && (left <= 0 || !failover):
		s.diverted = false
	case !s.diverted && !primary && left <= 0 && failover:
		s.diverted = true
	case s.diverted == primary && left > 0:
		return s.diverted, left
	}
	return s.diverted, 0
}
