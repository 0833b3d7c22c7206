package host

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// supervisor keeps one unit as it should be. One goroutine (run) owns what it
// has; demand may be called from anywhere.
type supervisor struct {
	name    string
	backend Backend
	log     *zap.Logger
	report  func(have, Status, step) // called on every change
	now     func() time.Time

	mu   sync.Mutex
	want want
	wake chan struct{}

	// Owned by run.
	have    have
	status  Status
	running Running
	follow  sync.WaitGroup
	events  chan event
	others  <-chan struct{} // rings when somebody else may have started the unit, nil: nobody can
}

// event is news of the running activation: a status, or its death.
type event struct {
	status Status
	dead   bool
}

// setWanted sets what should be.
func (s *supervisor) setWanted(w want) {
	s.mu.Lock()
	s.want = w
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *supervisor) wanted() want {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want
}

// run supervises until ctx ends (false; the unit runs on) or the unit is
// forgotten (true). It begins by finding out what is, and thus may be called
// again after a panic.
func (s *supervisor) run(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer s.follow.Wait()
	defer cancel()
	s.have, s.status, s.running = have{}, Status{}, nil
	var done func()
	s.others, done = s.backend.Watch(s.name)
	defer done()
	s.takeOver(ctx)
	for ctx.Err() == nil {
		then := nextStep(s.wanted(), s.have, s.now())
		s.report(s.have, s.status, then)
		switch then.verb {
		case forget, start, restart:
			// If others can start the unit too, it may run by now.
			if s.others != nil && s.adoptRevived(ctx, s.findActivation(ctx)) || ctx.Err() != nil {
				continue
			}
			if nextStep(s.wanted(), s.have, s.now()).verb != then.verb { // the search may have taken long
				continue
			}
			if then.verb == forget {
				return true
			}
			s.startActivation(ctx, then.verb == restart)
			continue
		case stop:
			s.have.stopping = true
			s.running.Stop()
			continue
		case keep, wait:
		}
		s.awaitChange(ctx, then)
	}
	return false
}

// awaitChange returns when something has changed or it is time.
func (s *supervisor) awaitChange(ctx context.Context, then step) {
	var timer <-chan time.Time
	if then.verb == wait {
		timer = time.After(then.until.Sub(s.now()))
	}
	others := s.others
	if s.have.alive {
		others = nil // it is followed
	}
	select {
	case <-ctx.Done():
	case <-timer:
	case <-s.wake:
	case <-others:
		if found, err := s.backend.Find(ctx, s.name); err == nil { // else the next ring tells
			s.adoptRevived(ctx, found)
		}
	case e := <-s.events:
		if !e.dead {
			s.status = e.status
			return
		}
		s.recordEnd(s.backend.End(ctx, s.name, s.have.stopping))
	}
}

// takeOver finds what an earlier unitd, or an order without an answer, left. A
// running unit is followed and not touched. For a unit that has ended, the way
// in which it ended decides what follows.
func (s *supervisor) takeOver(ctx context.Context) {
	found := s.findActivation(ctx)
	if ctx.Err() != nil {
		return
	}
	s.have.generation, s.have.hash = found.Generation, found.Hash
	s.have.restarts, s.have.streak = found.Restarts, found.Streak
	s.have.exit, s.status = found.Exit, found.Status
	switch {
	case found.Running != nil:
		s.log.Info("unit is taken over", zap.Int("main_pid", found.Status.MainPID), zap.String("state", found.Status.Active))
		s.followRunning(ctx, found.Running)
	case found.Exit != nil:
		s.recordEnd(Ended{Status: found.Status, Exit: *found.Exit, Up: found.Up})
	}
}

// findActivation looks for the unit until that works or ctx ends. To start a unit without having looked could make a
// second copy of it.
func (s *supervisor) findActivation(ctx context.Context) Found {
	for ctx.Err() == nil {
		found, err := s.backend.Find(ctx, s.name)
		if err == nil {
			return found
		}
		s.log.Error("unit cannot be looked for, trying again", zap.Error(err))
		s.pauseBeforeRetry(ctx)
	}
	return Found{}
}

// adoptRevived adopts a unit that was down and was started by somebody else, and tells whether it did.
func (s *supervisor) adoptRevived(ctx context.Context, found Found) bool {
	if found.Running == nil {
		return false
	}
	s.log.Info("unit was started by somebody else", zap.Int("main_pid", found.Status.MainPID))
	s.have.generation, s.have.hash, s.status = found.Generation, found.Hash, found.Status
	s.followRunning(ctx, found.Running)
	return true
}

func (s *supervisor) startActivation(ctx context.Context, again bool) {
	w := s.wanted()
	if again {
		s.have.restarts++
	} else {
		s.have.restarts, s.have.streak, s.have.exit = 0, 0, nil
	}
	s.have.generation, s.have.hash = w.generation, w.service.Hash
	s.have.stopping = false
	s.status = Status{}
	running, err := s.backend.Start(ctx, s.name, Activation{
		Generation: w.generation, Restarts: s.have.restarts, Streak: s.have.streak, Previous: s.have.exit,
		Service: w.service, Options: w.options,
	})
	if errors.Is(err, ErrUnreached) {
		s.log.Error("unit cannot be started, trying again", zap.Error(err))
		s.pauseBeforeRetry(ctx)
		s.takeOver(ctx)
		return
	}
	if err != nil {
		s.log.Error("unit cannot be started", zap.Error(err))
		s.have.streak = service.Streak(s.have.streak, 0)
		s.have.exit = &service.Exit{At: s.now(), Result: service.ResultResources, Detail: err.Error()}
		return
	}
	s.followRunning(ctx, running)
}

// removeRemains removes what a deleted unit leaves. It tries until that works, ctx ends or the
// unit is wanted again. As long as something is left, somebody could start the unit from it, and
// the unit would run unseen.
func (s *supervisor) removeRemains(ctx context.Context) {
	for ctx.Err() == nil && s.wanted().forgotten {
		err := s.backend.Forget(ctx, s.name)
		if err == nil {
			return
		}
		s.log.Warn("remains of a deleted unit cannot be removed, trying again", zap.Error(err))
		s.pauseBeforeRetry(ctx)
	}
}

// followRunning follows a running activation until it is dead.
func (s *supervisor) followRunning(ctx context.Context, running Running) {
	s.running = running
	s.have.alive = true
	tell := func(e event) {
		select {
		case s.events <- e:
		case <-ctx.Done():
		}
	}
	follow := func() error {
		return loop.Contain(ctx, "follower", "unit "+s.name, func() error {
			return running.Follow(ctx, func(status Status) { tell(event{status: status}) })
		})
	}
	s.follow.Go(func() {
		err := follow()
		for err != nil && ctx.Err() == nil { // a unit that cannot be seen may still run
			s.log.Error("unit cannot be followed, trying again", zap.Error(err))
			s.pauseBeforeRetry(ctx)
			err = follow()
		}
		if ctx.Err() == nil {
			tell(event{dead: true})
		}
	})
}

// pauseBeforeRetry waits between two attempts at something that fails at the moment; it ends with ctx.
func (s *supervisor) pauseBeforeRetry(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// recordEnd records how the latest activation ended.
func (s *supervisor) recordEnd(ended Ended) {
	s.have.alive, s.have.stopping, s.running = false, false, nil
	s.have.streak = service.Streak(s.have.streak, ended.Up)
	s.have.exit = &ended.Exit
	s.status = ended.Status
	level := s.log.Info
	if ended.Exit.Result != service.ResultSuccess {
		level = s.log.Warn
	}
	level("unit ended", zap.String("result", ended.Exit.Detail), zap.Bool("requested", ended.Exit.Requested))
}
