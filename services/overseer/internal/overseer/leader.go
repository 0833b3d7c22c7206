package overseer

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

const (
	resignLimit = 2 * time.Second
	unfitPause  = 100 * time.Millisecond // between looks at whether we are fit; no request is made
)

// unfit is why a term ends that we give back although nobody told us to.
const unfit = "the broker is not usable"

// Leases is the part of manager-api that holds leadership; *managerapi.Client is one.
type Leases interface {
	// Lead acquires (term 0) or renews. Conflict: another leads, or the term is stale.
	Lead(ctx context.Context, id component.ExchangeID, r managerapi.LeaseRequest) (managerapi.Lease, error)
	Resign(ctx context.Context, id component.ExchangeID, term int64) error
}

// Leader tries to lead the exchange and, while it does, runs Reign. The lease is asked for and renewed every third of its
// time to live. It steps down when it is told to, when it could not renew within its trust window, and on a stop; on a
// stop it resigns before anything else, so that a successor can lead while we still tidy up.
type Leader struct {
	Leases   Leases
	Exchange component.ExchangeID
	Hostname string
	TTL      time.Duration
	// Fit reports whether this process could hear its exchange if it led. One that cannot leaves the lease to others, and
	// gives it back when it was unfit for longer than Patience.
	Fit      func() bool
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

	leads atomic.Bool
	told  string    // last complaint, logged once
	fit   time.Time // when it was fit last
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
		l.fit = time.Now()
		if t := l.acquire(inner); t != nil {
			if err := l.reign(inner, t); err != nil {
				return err
			}
		}
		pause(inner, l.TTL/3)
	}
	<-ctx.Done() // resigned; the other parts stop when they are told
	return nil
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
	r.Holder, r.TTLMS = l.Hostname, l.TTL.Milliseconds()
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

func (l *Leader) reign(ctx context.Context, t *Term) error {
	termContext, cancel := context.WithCancel(ctx)
	defer cancel()
	l.leads.Store(true)
	l.Metrics.leader.Set(1)
	l.Metrics.terms.Inc()
	l.Log.Info("leading the exchange", zap.Int64("term", t.ID))
	ended := make(chan error, 1)
	go func() { ended <- l.Reign(termContext, t) }()
	why, returned, err := l.keep(ctx, t, ended)
	t.end() // no write begins from here on
	cancel()
	slow := time.After(l.Drain)
	l.leads.Store(false)
	l.Metrics.leader.Set(0)
	l.Log.Info("no longer leading the exchange", zap.Int64("term", t.ID), zap.String("reason", why))
	if ctx.Err() != nil || returned || why == unfit {
		l.resign(ctx, t)
	}
	if !returned {
		err = l.await(ctx, ended, slow)
	}
	if ctx.Err() != nil || (err == nil && !returned) {
		return nil
	}
	return err
}

// await waits for the end of Reign, whose term is over. It may take long: a broker that has fallen silent is asked to end
// the subscriptions first. That is no reason to end the process.
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

// renew returns why the term is over, "" if it goes on: after an answer that says nothing it does, until its window closes.
func (l *Leader) renew(ctx context.Context, t *Term) string {
	if !t.Trusted() {
		return "the lease could not be renewed in time"
	}
	if l.Fit() {
		l.fit = time.Now()
	} else if time.Since(l.fit) > l.Patience {
		return unfit
	}
	covered, told := l.Covered()
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
	if err := l.Leases.Resign(ctx, l.Exchange, t.ID); err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
		l.Log.Warn("leadership not given back", zap.Error(err))
	}
}
