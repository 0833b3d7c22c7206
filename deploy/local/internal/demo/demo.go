// Package demo tells the story of OpenAperture on a running stack, and checks it while it is told: the suite replaces
// itself by a new version, a bad version is taken back and quarantined, and a service that is no part of OpenAperture
// is upgraded the same way. What it claims it has seen twice: over REST, and in /proc.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/table"
	"github.com/openaperture/openaperture/deploy/local/internal/witness"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// patience bounds each phase. It is far above what a phase takes: what is late is a failure, not slow.
const patience = 4 * time.Minute

// promised is how long a story may take on two cores, from the moment that the stack is ready until the summary.
const promised = 240 * time.Second

// Versions are the releases of one telling. A stack that has been through it before goes on with higher numbers.
type Versions struct {
	Now, Good, Bad      string
	BadService          stack.Service
	BadMode             stack.Mode
	HelloNow, HelloGood string
}

// Story is one telling. Its methods are called in the order in which they stand.
type Story struct {
	Stack    *stack.Stack
	Out      io.Writer
	Terminal bool
	Versions Versions
	Ready    time.Time // since when the stack is ready, and the releases are built

	api     *managerapi.Client
	witness witness.Witness
	table   *table.Table
	rows    []table.Row
	before  map[int]bool // processes that must not run any more
	phases  []phase
	ended   time.Time
	checked []string
}

type phase struct {
	name string
	took time.Duration
}

// seed types of the stack, in the order in which they are upgraded.
var own = []component.Type{component.Manager, component.Overseer, component.Deployer}

// Prepare chooses versions, builds their releases, starts the service that is no part of OpenAperture and remembers
// which processes run. broken and mode say what the bad version is. Building is no part of the promise, all after it
// is.
func (s *Story) Prepare(ctx context.Context, broken stack.Service, mode stack.Mode) error {
	var err error
	if s.api, err = s.Stack.Client(); err != nil {
		return err
	}
	s.witness = witness.Witness{Stack: s.Stack, API: s.api}
	if err := s.chooseVersions(ctx, broken, mode); err != nil {
		return err
	}
	v := s.Versions
	fmt.Fprintf(s.Out, "building %s (good), %s (%s, %s) and hello %s; profile %s\n", v.Good, v.Bad, broken.Name, mode,
		v.HelloGood, s.Stack.Profile)
	if err := errors.Join(s.Stack.Build(ctx, v.Good), s.Stack.BuildBroken(ctx, v.Bad, broken, mode)); err != nil {
		return err
	}
	if err := errors.Join(s.Stack.BuildHello(ctx, v.HelloNow), s.Stack.BuildHello(ctx, v.HelloGood)); err != nil {
		return err
	}
	s.Ready = time.Now()
	if err := s.Stack.LaunchHello(ctx, s.api); err != nil {
		return err
	}
	s.table = &table.Table{Out: s.Out, Terminal: s.Terminal, Began: s.Ready, Now: time.Now,
		Header: table.Row{"component", "wanted", "recorded", "running", "state"}}
	return s.remember()
}

func (s *Story) chooseVersions(ctx context.Context, broken stack.Service, mode stack.Mode) error {
	now, err := stack.FindComponent(ctx, s.api, component.Overseer)
	if err != nil {
		return err
	}
	highest, err := s.Stack.HighestRelease()
	if err != nil {
		return err
	}
	s.Versions = Versions{Now: now.SourceRepoGitRef, Good: fmt.Sprintf("v%d", highest+1),
		Bad:        fmt.Sprintf("v%d", highest+2),
		BadService: broken, BadMode: mode, HelloNow: stack.First, HelloGood: fmt.Sprintf("v%d", highest+1)}
	return nil
}

// remember notes all processes of releases: a later phase wants to see others.
func (s *Story) remember() error {
	running, err := proc.Running(s.Stack.Releases())
	if err != nil {
		return err
	}
	s.before = map[int]bool{}
	for _, p := range running {
		s.before[p.PID] = true
	}
	return nil
}

// Upgrade makes the good version the gold standard of OpenAperture itself, requests nothing, and watches the suite
// replace itself: the automatic checks of its overseers find the difference.
func (s *Story) Upgrade(ctx context.Context) error {
	return s.phase("OpenAperture replaces itself by "+s.Versions.Good, func() error {
		for _, t := range own {
			if err := stack.SetGoldStandard(ctx, s.api, t, s.Stack.SourceRepo(stack.Own[0]), s.Versions.Good); err != nil {
				return err
			}
		}
		s.table.Say("the gold standard of manager, overseer and deployer is %s now; nobody requests anything",
			s.Versions.Good)
		for _, t := range own {
			if _, err := s.awaitUpgrade(ctx, t, s.Versions.Good, upgrade.Completed); err != nil {
				return err
			}
			s.table.Say("%s runs %s, proven", t, s.Versions.Good)
		}
		return s.verify(ctx, stack.Own, s.Versions.Good)
	})
}

// Fail makes the bad version the gold standard of its type and requests the upgrade: it fails, is taken back, and the
// version is quarantined with a reason.
func (s *Story) Fail(ctx context.Context) error {
	v := s.Versions
	t := v.BadService.Type
	return s.phase(fmt.Sprintf("%s %s fails and is taken back", v.BadService.Name, v.Bad), func() error {
		if err := stack.SetGoldStandard(ctx, s.api, t, s.Stack.SourceRepo(v.BadService), v.Bad); err != nil {
			return err
		}
		c, err := stack.FindComponent(ctx, s.api, t)
		if err != nil {
			return err
		}
		u, err := s.api.RequestUpgrade(ctx, managerapi.UpgradeRequest{ComponentID: c.ID,
			Reason: "the demo tries a bad version"})
		if err != nil {
			return fmt.Errorf("request the upgrade of %s: %w", t, err)
		}
		s.table.Say("%s %s is bad (%s); upgrade %s of type %s is requested", v.BadService.Name, v.Bad, v.BadMode, u.ID, t)
		u, err = s.awaitUpgrade(ctx, t, v.Bad, upgrade.RolledBack)
		if err != nil {
			return err
		}
		if err := s.quarantined(ctx, t, v.Bad); err != nil {
			return err
		}
		s.table.Say("the upgrade is %s, cause %s: %s", u.State, u.Cause, headline(u.Verdict.Message))
		return s.verifyReturned(ctx, t)
	})
}

// Hello upgrades the service that is no part of OpenAperture.
func (s *Story) Hello(ctx context.Context) error {
	return s.phase("hello, no part of OpenAperture, is upgraded the same way", func() error {
		if err := s.remember(); err != nil {
			return err
		}
		if err := stack.SetGoldStandard(ctx, s.api, stack.Hello.Type, s.Stack.SourceRepo(stack.Hello),
			s.Versions.HelloGood); err != nil {
			return err
		}
		s.table.Say("the gold standard of hello is %s now", s.Versions.HelloGood)
		if _, err := s.awaitUpgrade(ctx, stack.Hello.Type, s.Versions.HelloGood, upgrade.Completed); err != nil {
			return err
		}
		return s.verify(ctx, []stack.Service{stack.Hello}, s.Versions.HelloGood)
	})
}

// Summary ends the story: it prints what was checked, how long each phase took, and how to go on.
func (s *Story) Summary() {
	s.ended = time.Now()
	fmt.Fprintf(s.Out, "\nseen over REST and in /proc:\n")
	for _, c := range s.checked {
		fmt.Fprintf(s.Out, "  %s\n", c)
	}
	fmt.Fprintf(s.Out, "\nseconds per phase (profile %s):\n", s.Stack.Profile)
	for _, p := range s.phases {
		fmt.Fprintf(s.Out, "  %6.1f  %s\n", p.took.Seconds(), p.name)
	}
	fmt.Fprintf(s.Out, "  %6.1f  from stack ready to here, at most %.0f: starting hello counts, building releases does "+
		"not\n",
		s.told().Seconds(), promised.Seconds())
}

// InTime wants the story to have been told within the promised time.
func (s *Story) InTime() error {
	if took := s.told(); took > promised {
		return fmt.Errorf("from stack ready to the summary it took %.1f s, more than %.0f", took.Seconds(),
			promised.Seconds())
	}
	return nil
}

func (s *Story) told() time.Duration { return s.ended.Sub(s.Ready) }

func (s *Story) phase(name string, f func() error) error {
	began := time.Now()
	err := f()
	s.phases = append(s.phases, phase{name, time.Since(began)})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// awaitUpgrade watches until the upgrade of a type to a ref has ended, and wants it to have ended like this.
func (s *Story) awaitUpgrade(ctx context.Context, t component.Type, ref string,
	want upgrade.State) (managerapi.Upgrade, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var found managerapi.Upgrade
	err := s.watch(ctx, func() (bool, error) {
		u, ok, err := s.witness.Upgrade(ctx, t, ref)
		if err != nil || !ok || u.State.Open() {
			return false, err
		}
		found = u
		if u.State != want {
			return false, fmt.Errorf("the upgrade %s of %s to %s ended as %s (%s: %s), not as %s", u.ID, t, ref, u.State,
				u.Cause, headline(u.Verdict.Message), want)
		}
		return true, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return found, fmt.Errorf("the upgrade of %s to %s has not ended after %s", t, ref, patience)
	}
	return found, err
}

// headline is the first line of a message; what follows is the unit's own log.
func headline(message string) string {
	first, _, _ := strings.Cut(message, "\n")
	return first
}
