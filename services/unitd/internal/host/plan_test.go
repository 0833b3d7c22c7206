package host_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

var _ = Describe("What a supervisor does next", func() {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	exit := func(ago time.Duration, result service.Result) *service.Exit {
		return &service.Exit{At: now.Add(-ago), Result: result}
	}
	requested := &service.Exit{At: now, Result: service.ResultSuccess, Requested: true}
	base := host.Situation{Launched: true, Want: "b", Have: "b", Restart: service.RestartAlways}
	with := func(change func(*host.Situation)) host.Situation {
		s := base
		change(&s)
		return s
	}

	DescribeTable("follows from what is wanted and what is", func(s host.Situation, verb string, after time.Duration) {
		got, wait := host.Next(s, now)
		Expect(got).To(Equal(verb))
		Expect(wait).To(Equal(after))
	},
		Entry("never run: start", with(func(s *host.Situation) { s.Have = "" }), "start", time.Duration(0)),
		Entry("ended with the host: start", base, "start", time.Duration(0)),
		Entry("runs as wanted: keep", with(func(s *host.Situation) { s.Alive = true }), "keep", time.Duration(0)),
		Entry("another definition runs: stop it", with(func(s *host.Situation) { s.Alive, s.Have = true, "a" }), "stop",
			time.Duration(0)),
		Entry("… and is being stopped: keep",
			with(func(s *host.Situation) { s.Alive, s.Stopping, s.Have = true, true, "a" }), "keep", time.Duration(0)),
		Entry("… and has ended: start the new one",
			with(func(s *host.Situation) { s.Have, s.Exit = "a", exit(0, service.ResultExitCode) }), "start", time.Duration(0)),
		Entry("not wanted: stop", with(func(s *host.Situation) { s.Alive, s.Launched = true, false }), "stop",
			time.Duration(0)),
		Entry("not wanted and dead: keep", with(func(s *host.Situation) { s.Launched = false }), "keep", time.Duration(0)),
		Entry("unreadable, another definition runs: keep it", with(func(s *host.Situation) {
			s.Unreadable, s.Alive, s.Have = true, true, "a"
		}), "keep", time.Duration(0)),
		Entry("unreadable and dead: keep", with(func(s *host.Situation) { s.Unreadable, s.Have = true, "" }), "keep",
			time.Duration(0)),
		Entry("unreadable and not wanted: stop", with(func(s *host.Situation) {
			s.Unreadable, s.Alive, s.Launched = true, true, false
		}), "stop", time.Duration(0)),
		Entry("deleted: stop", with(func(s *host.Situation) { s.Alive, s.Launched, s.Forgotten = true, false, true }),
			"stop", time.Duration(0)),
		Entry("deleted and dead: forget", with(func(s *host.Situation) { s.Launched, s.Forgotten = false, true }), "forget",
			time.Duration(0)),
		Entry("was stopped on request: start", with(func(s *host.Situation) { s.Exit = requested }), "start",
			time.Duration(0)),
		Entry("just crashed: wait RestartSec",
			with(func(s *host.Situation) { s.Exit, s.Streak = exit(0, service.ResultExitCode), 1 }), "wait", time.Second),
		Entry("crashed again: wait longer",
			with(func(s *host.Situation) { s.Exit, s.Streak = exit(0, service.ResultExitCode), 3 }), "wait", 4*time.Second),
		Entry("crashed long ago: restart",
			with(func(s *host.Situation) { s.Exit, s.Streak = exit(time.Minute, service.ResultExitCode), 3 }), "restart",
			time.Duration(0)),
		Entry("crashed in the future: the clock was set back (C13)",
			with(func(s *host.Situation) { s.Exit, s.Streak = exit(-time.Hour, service.ResultSignal), 1 }), "wait", time.Second),
		Entry("ended, no policy: keep",
			with(func(s *host.Situation) { s.Restart, s.Exit = service.RestartNo, exit(0, service.ResultSignal) }), "keep",
			time.Duration(0)),
		Entry("ended well, on-failure: keep",
			with(func(s *host.Situation) { s.Restart, s.Exit = service.RestartOnFailure, exit(0, service.ResultSuccess) }),
			"keep", time.Duration(0)),
	)
})

var _ = Describe("Placement", func() {
	machine := host.Machine{ID: "m1", Metadata: map[string]string{"role": "app", "rank": "1"}}

	// place takes units as "name Key=Value Key=Value", oldest first.
	place := func(units ...string) []string {
		var names []string
		options := map[string][]unit.Option{}
		for _, text := range units {
			fields := strings.Fields(text)
			names = append(names, fields[0])
			for _, field := range fields[1:] {
				key, value, _ := strings.Cut(field, "=")
				options[fields[0]] = append(options[fields[0]], unit.Option{Section: "X-Fleet", Name: key, Value: value})
			}
		}
		return host.Place(machine, names, options)
	}

	DescribeTable("takes what fits this machine", func(units, here []string) {
		Expect(place(units...)).To(HaveExactElements(here))
	},
		Entry("without requirements", []string{"a.service"}, []string{"a.service"}),
		Entry("our MachineID", []string{"a.service MachineID=m1", "b.service MachineID=m2"}, []string{"a.service"}),
		Entry("metadata that we have", []string{"a.service MachineMetadata=role=app MachineMetadata=rank=1"},
			[]string{"a.service"}),
		Entry("one of several values", []string{"a.service MachineMetadata=role=db MachineMetadata=role=app"},
			[]string{"a.service"}),
		Entry("not metadata that we lack",
			[]string{"a.service MachineMetadata=role=db", "b.service MachineMetadata=zone=x"}, []string{}),
		Entry("of two that conflict the older one",
			[]string{"t@2.service Conflicts=t@*.service", "t@1.service Conflicts=t@*.service"}, []string{"t@2.service"}),
		Entry("a conflict that only the older one states", []string{"a.service Conflicts=b.service", "b.service"},
			[]string{"a.service"}),
		Entry("old names of keys",
			[]string{"a.service X-ConditionMachineMetadata=role=db", "b.service X-ConditionMachineOf=a.service",
				"c.service X-ConditionMachineID=m2",
				"d.service", "e.service X-Conflicts=d.service"}, []string{"d.service"}),
		Entry("a unit with its peer, whichever is older", []string{"a.service MachineOf=b.service", "b.service"},
			[]string{"a.service", "b.service"}),
		Entry("not one whose peer is not here", []string{"a.service MachineOf=b.service", "b.service MachineID=m2"},
			[]string{}),
		Entry("a sidekick with its own instance",
			[]string{"side@1.service MachineOf=app@%i.service", "side@2.service MachineOf=app@%i.service", "app@1.service"},
			[]string{"side@1.service", "app@1.service"}),
		Entry("one of a template",
			[]string{"app@1.service Conflicts=%p@*.service", "app@2.service Conflicts=%p@*.service", "apple@1.service"},
			[]string{"app@1.service", "apple@1.service"}),
		Entry("not what conflicts by its own name",
			[]string{"x-a.service", "a.service Conflicts=x-%n", "x-b.service", "b.service Conflicts=x-%N.*"},
			[]string{"x-a.service", "x-b.service"}),
		Entry("a unit of its metadata",
			[]string{"a@app.service MachineMetadata=role=%i", "a@db.service MachineMetadata=role=%i"},
			[]string{"a@app.service"}),
	)
})
