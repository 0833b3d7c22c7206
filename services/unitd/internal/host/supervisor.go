package host

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/services/unitd/internal/service"
	"github.com/openaperture/openaperture/services/unitd/internal/shim"
)

// supervisor keeps one unit as it should be. One goroutine (run) owns what it
// has; demand may be called from anywhere.
type supervisor struct {
	name    string
	program string // the unitd binary
	runDir  string
	logDir  string
	bootID  string
	log     *zap.Logger
	report  func(have, shim.Status, step) // called on every change
	now     func() time.Time

	mu   sync.Mutex
	want want
	wake chan struct{}

	// Owned by run.
	have   have
	status shim.Status
	handle *shim.Handle
	follow sync.WaitGroup
	events chan event
}

// event is news of the running shim: a status, or its death.
type event struct {
	status shim.Status
	dead   bool
}

// demand sets what should be.
func (s *supervisor) demand(w want) {
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
// forgotten (true).
func (s *supervisor) run(ctx context.Context) bool {
	defer s.follow.Wait()
	s.takeOver(ctx)
	for ctx.Err() == nil {
		then := next(s.wanted(), s.have, s.now())
		s.report(s.have, s.status, then)
		switch then.verb {
		case forget:
			return true
		case start, restart:
			s.start(ctx, then.verb == restart)
			continue
		case stop:
			s.have.stopping = true
			s.handle.Stop()
			continue
		case keep, wait:
		}
		s.sleep(ctx, then)
	}
	return false
}

// sleep returns when something has changed or it is time.
func (s *supervisor) sleep(ctx context.Context, then step) {
	var timer <-chan time.Time
	if then.verb == wait {
		timer = time.After(then.until.Sub(s.now()))
	}
	select {
	case <-ctx.Done():
	case <-timer:
	case <-s.wake:
	case e := <-s.events:
		if !e.dead {
			s.status = e.status
			return
		}
		s.bury(ctx)
	}
}

// takeOver finds what an earlier unitd left: a running unit is followed and
// not touched, one that ended is judged by its record.
func (s *supervisor) takeOver(ctx context.Context) {
	activation, status, known, err := shim.Last(s.runDir)
	if err != nil {
		s.log.Warn("unit's last activation cannot be read", zap.Error(err))
	}
	if known {
		s.have.generation, s.have.hash = activation.Generation, activation.Service.Hash
		s.have.restarts, s.have.streak = activation.Restarts, activation.Streak
		s.status = status
	}
	handle, err := shim.Attach(s.runDir)
	switch {
	case err == nil:
		s.log.Info("unit is taken over", zap.Int("main_pid", status.MainPID), zap.String("phase", string(status.Phase)))
		s.have.exit = activation.Previous
		s.adopt(ctx, handle)
	case !errors.Is(err, shim.ErrNotRunning):
		s.log.Error("unit's shim cannot be looked for", zap.Error(err))
	case known && activation.BootID == s.bootID && status.Invocation != "":
		s.bury(ctx)
	case known && activation.BootID == s.bootID:
		// The earlier unitd was killed between its order and the shim's first
		// word: nothing has run, and the order stands.
		s.endRemains(ctx, activation, status)
	}
}

func (s *supervisor) start(ctx context.Context, again bool) {
	w := s.wanted()
	if again {
		s.have.restarts++
	} else {
		s.have.restarts, s.have.streak, s.have.exit = 0, 0, nil
	}
	s.have.generation, s.have.hash = w.generation, w.service.Hash
	s.have.stopping = false
	handle, err := shim.Start(s.program, s.runDir, shim.Activation{
		Invocation: uuid.NewString(), Generation: w.generation, BootID: s.bootID,
		Restarts: s.have.restarts, Streak: s.have.streak, Previous: s.have.exit, LogDir: s.logDir, Service: w.service,
	})
	if err != nil {
		s.log.Error("unit cannot be started", zap.Error(err))
		s.have.streak = service.Streak(s.have.streak, 0)
		s.have.exit = &shim.Exit{At: s.now(), Result: service.ResultResources, Detail: err.Error()}
		return
	}
	s.status = shim.Status{}
	s.adopt(ctx, handle)
}

// adopt follows a running shim until it is dead.
func (s *supervisor) adopt(ctx context.Context, handle *shim.Handle) {
	s.handle = handle
	s.have.alive = true
	s.follow.Go(func() {
		err := handle.Follow(ctx, func(status shim.Status) {
			select {
			case s.events <- event{status: status}:
			case <-ctx.Done():
			}
		})
		if err != nil && ctx.Err() == nil {
			s.log.Error("unit's shim cannot be followed", zap.Error(err))
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case s.events <- event{dead: true}:
		case <-ctx.Done():
		}
	})
}

// bury records how the latest activation ended, once its shim is dead. What a
// killed shim left behind is ended first: there are never two copies.
func (s *supervisor) bury(ctx context.Context) {
	activation, status, known, err := shim.Last(s.runDir)
	if err != nil || !known {
		s.log.Error("unit's last activation cannot be read", zap.Error(err))
	}
	if status.Exit == nil {
		status.Exit = s.lost(ctx, activation, status)
	}
	s.have.alive, s.have.stopping, s.handle = false, false, nil
	s.have.streak = service.Streak(activation.Streak, status.Up())
	s.have.exit = status.Exit
	s.status = status
	level := s.log.Info
	if status.Exit.Result != service.ResultSuccess {
		level = s.log.Warn
	}
	level("unit ended", zap.String("result", status.Exit.Detail), zap.Bool("requested", status.Exit.Requested))
}

// lost ends what a killed shim left behind, and says how the activation ended.
func (s *supervisor) lost(ctx context.Context, activation shim.Activation, status shim.Status) *shim.Exit {
	s.endRemains(ctx, activation, status)
	exit := &shim.Exit{At: s.now(), Result: service.ResultLost, Detail: "shim killed", Requested: s.have.stopping}
	if complaint := shim.Complaint(s.runDir); status.Invocation == "" && complaint != "" {
		exit.Result, exit.Detail = service.ResultResources, complaint
	}
	return exit
}

// endRemains returns when no process of the activation is left, or ctx ends.
func (s *supervisor) endRemains(ctx context.Context, activation shim.Activation, status shim.Status) {
	for {
		err := shim.KillRemains(ctx, activation, status)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.log.Error("processes of a killed shim cannot be ended, trying again", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// clear removes what a forgotten unit leaves on disk.
func (s *supervisor) clear() error {
	return errors.Join(os.RemoveAll(s.runDir), os.RemoveAll(s.logDir))
}
