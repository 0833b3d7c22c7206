package overseer

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

const (
	resignLimit = 2 * time.Second
	unfitPause  = 100 * time.Millisecond // between looks at whether we are fit; no request is made
)

// capabilities are what this release can judge on beside what the former release could.
var capabilities = []string{managerapi.CapInstances}

// Reasons for which a leader gives its term back although nobody told it to.
const (
	unfit = "the broker is not usable"
	deaf  = "the exchange is not covered, another overseer may hear it"
)

// Leases is the part of manager-api that holds leadership; *managerapi.Client is one.
type Leases interface {
	// Lead acquires (term 0) or renews. Conflict: another leads, or the term is stale.
	Lead(ctx context.Context, id component.ExchangeID, r managerapi.LeaseRequest) (managerapi.Lease, error)
	Resign(ctx context.Context, id component.ExchangeID, term int64) error
}

// Leader tries to lead the exchange and, while it leads, runs Reign. The lease is asked for and renewed every third of
// its time to live. The leader steps down when it is told to, when it could not renew within its trust window, on a
// stop, and when it does not cover the exchange for longer than Patience. On a stop it resigns before anything else, so
// that a successor can lead while we still tidy up. After a term without coverage it stands aside for a while
// (StandAside).
type Leader struct {
	Leases   Leases
	Exchange component.ExchangeID
	Hostname string
	TTL      time.Duration
	// Fit reports whether this process could hear its exchange if it led. One that cannot leaves the lease to others.
	Fit func() bool
	// Patience is how long a term may go on while this process is unfit or does not cover the exchange (times.LiveWithin).
	Patience time.Duration
	// Covered reports, at each renewal, whether the exchange was listened to without a break since the last one that
	// arrived; told is called when this one has.
	Covered func() (covered bool, told func())
	// Reign runs while the term lasts: its context ends with the term. An earlier return ends Run with its error. One that
	// returns late is waited for, so that no term meets the parts of the last one; on a stop for Drain at most.
	Reign func(ctx context.Context, t *Term) error
	Drain time.Duration
	// Stopping is closed when the process begins to stop, before the context of Run ends.
	Stopping <-chan struct{}
	Log      *zap.Logger
	Metrics  *Metrics

	leads   atomic.Bool
	told    string    // last complaint, logged once
	covered time.Time // when the term last covered the exchange; at first, when it began
	deaf    int       // terms in a row that were given back without having covered
}

// Leads reports whether a term of this process lasts.
func (l *Leader) Leads() bool { return l.leads.Load() }

// Run leads whenever it can until ctx ends or Stopping is closed. It returns an error only if Reign failed.
func (l *Leader) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-l.Stopping:
			stop()
		case <-inner.Done():
		}
	}()
	defer func() { stop(); <-watched }()
	for inner.Err() == nil {
		if !l.Fit() {
			pause(inner, unfitPause)
			continue
		}
		aside := l.TTL / 3
		if t := l.acquire(inner); t != nil {
			why, err := l.reign(inner, t)
			if err != nil {
				return err
			}
			if why == deaf || why == unfit {
				l.deaf++
				aside = StandAside(l.deaf, l.TTL, 2*l.Patience, rand.Float64())
			}
		}
		pause(inner, aside)
	}
	<-ctx.Done() // resigned; the other parts stop when they are told
	return nil
}

// StandAside is how long an overseer does not ask for the lease after it has given back the nth term in a row that did
// not cover the exchange. The time begins at the lease's time to live, doubles up to most, and draw, from [0, 1),
// lengthens it by up to a half. A candidate asks three times in the shortest such time, so a healthy one gets its
// chance; an overseer that is alone keeps trying, because the time is bounded.
func StandAside(nth int, ttl, most time.Duration, draw float64) time.Duration {
	wait := ttl
	for range nth - 1 {
		if wait >= most {
			break
		}
		wait *= 2
	}
	wait = max(min(wait, most), ttl)
	return wait + time.Duration(draw*float64(wait)/2)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// ask sends one request, for at most a third of the time to live, and returns until when its answer can be trusted: one
// fifth of the time to live is kept as a margin before the row can expire.
func (l *Leader) ask(ctx context.Context, r managerapi.LeaseRequest) (managerapi.Lease, time.Time, error) {
	until := time.Now().Add(l.TTL - l.TTL/5)
	ctx, cancel := context.WithTimeout(ctx, l.TTL/3)
	defer cancel()
	r.Holder, r.TTLMS, r.Capabilities = l.Hostname, l.TTL.Milliseconds(), capabilities
	lease, err := l.Leases.Lead(ctx, l.Exchange, r)
	return lease, until, err
}

func (l *Leader) acquire(ctx context.Context) *Term {
	lease, until, err := l.ask(ctx, managerapi.LeaseRequest{})
	if err != nil {
		l.complain(ctx, err)
		return nil
	}
	l.told = ""
	return NewTerm(lease.Term, until)
}

// complain logs what keeps us from leading, once per text. That another leads is the normal life of a follower.
func (l *Leader) complain(ctx context.Context, err error) {
	if ctx.Err() != nil || err.Error() == l.told {
		return
	}
	l.told = err.Error()
	if fault.Is(err, fault.Conflict) {
		l.Log.Debug("another overseer leads", zap.Error(err))
		return
	}
	l.Log.Warn("leadership not known", zap.Error(err))
}

// reign runs one term, and returns why it is over once its parts have ended.
func (l *Leader) reign(ctx context.Context, t *Term) (string, error) {
	termContext, cancel := context.WithCancel(ctx)
	defer cancel()
	l.leads.Store(true)
	l.covered = time.Now()
	l.Metrics.leader.Set(1)
	l.Metrics.terms.Inc()
	l.Log.Info("leading the exchange", zap.Int64("term", t.ID))
	ended := make(chan error, 1)
	go func() {
		ended <- loop.Contain(termContext, "leader", "", func() error { return l.Reign(termContext, t) })
	}()
	why, returned, err := l.keep(ctx, t, ended)
	t.end() // no write begins from here on
	cancel()
	slow := time.After(l.Drain)
	l.leads.Store(false)
	l.Metrics.leader.Set(0)
	l.Log.Info("no longer leading the exchange", zap.Int64("term", t.ID), zap.String("reason", why))
	if ctx.Err() != nil || returned || why == unfit || why == deaf {
		l.resign(ctx, t)
	}
	if !returned {
		err = l.await(ctx, ended, slow)
	}
	if ctx.Err() != nil || (err == nil && !returned) {
		return why, nil
	}
	return why, err
}

// await waits for the end of Reign after the term is over. This may take long, because a broker that has fallen silent
// is asked to end the subscriptions first. It is no reason to end the process.
func (l *Leader) await(ctx context.Context, ended <-chan error, slow <-chan time.Time) error {
	select {
	case err := <-ended:
		return err
	case <-slow:
		l.Log.Warn("the parts of the term are slow to end", zap.Duration("waited", l.Drain))
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil // a stop, and they have had their time
	}
}

// keep renews the term until it is over and says why; returned tells that Reign has ended by itself, with err.
func (l *Leader) keep(ctx context.Context, t *Term, ended <-chan error) (why string, returned bool, err error) {
	next := time.NewTimer(l.TTL / 3)
	defer next.Stop()
	for {
		expiry := time.NewTimer(max(t.left(), 0))
		select {
		case <-ctx.Done():
			why = "stopping"
		case err = <-ended:
			why, returned = "the leader's parts ended", true
		case <-expiry.C:
			why = "the lease could not be renewed in time"
		case <-next.C:
			why = l.renew(ctx, t)
			next.Reset(l.TTL / 3)
		}
		expiry.Stop()
		if why != "" {
			return why, returned, err
		}
	}
}

// renew renews the lease and returns why the term is over, "" if it goes on. Without an answer the term goes on until
// its trust window closes.
func (l *Leader) renew(ctx context.Context, t *Term) string {
	if !t.Trusted() {
		return "the lease could not be renewed in time"
	}
	covered, told := l.Covered()
	fit := l.Fit()
	switch {
	case covered && fit:
		l.covered, l.deaf = time.Now(), 0
	case time.Since(l.covered) <= l.Patience:
	case fit:
		return deaf
	default:
		return unfit
	}
	lease, until, err := l.ask(ctx, managerapi.LeaseRequest{Term: t.ID, Covered: covered})
	switch {
	case err == nil && lease.Term == t.ID:
		told()
		t.extend(until)
		l.told = ""
		return ""
	case err == nil:
		return "the term is stale"
	case fault.Is(err, fault.Conflict):
		return "another overseer leads"
	default:
		l.complain(ctx, err)
		return ""
	}
}

// resign gives the lease back. If that does not arrive, the lease expires by itself.
func (l *Leader) resign(ctx context.Context, t *Term) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignLimit) // detached: ctx may have ended
	defer cancel()
	err := l.Leases.Resign(ctx, l.Exchange, t.ID)
	if err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
		l.Log.Warn("leadership not given back", zap.Error(err))
	}
}
