package soak

import (
	"fmt"
	"strings"
)

// broken ends the run: it writes what does not hold, with the seed, the step and what was seen.
func (r *run) broken(after string, violations []Violation) error {
	now := r.before
	r.say("BROKEN at step %d, after %s; seed %d", r.tally.Steps, after, r.cfg.Seed)
	for _, v := range violations {
		r.tally.violation(v)
		r.say("  %s", v)
	}
	line := func(format string, args ...any) { fmt.Fprintf(r.out, "          "+format+"\n", args...) }
	for _, c := range now.Components {
		line("component %d %s is recorded at %s", c.ID, c.Type, c.Recorded)
	}
	for _, u := range now.Upgrades[max(0, len(now.Upgrades)-6):] {
		line("upgrade %s %s %s → %s is %s phase %d %s %s %s", u.ID, u.Type, u.From, u.To, u.State, u.Phase, u.Step, u.Cause,
			u.Code)
	}
	for _, o := range now.Orders[max(0, len(now.Orders)-4):] {
		line("order %s %s is %s, token %d", o.ID, o.Milestone, o.State, o.Token)
	}
	for _, p := range now.Processes {
		line("process %d %s runs %s", p.PID, p.Hostname, p.Ref)
	}
	line("units %v", now.Units)
	for _, l := range now.Leases {
		line("lease %s of %s, token %d, ends in %.1f s", l.Name, l.Holder, l.Token, l.Expires.Sub(now.Now).Seconds())
	}
	for _, l := range r.lasting {
		line("fault of %s goes on", l.what)
	}
	for _, e := range now.Journal[max(0, len(now.Journal)-25):] {
		line("%6d %s %s %s: %s", e.Seq, e.At.Format("15:04:05.000"), e.Subject, e.Code, first(e.Message))
	}
	line("logs of the units: %s; database: . %s", r.stack.Dir+"/unitd/logs", r.stack.EnvFile())
	return fmt.Errorf("%w: seed %d, step %d, after %s: %v", errBroken, r.cfg.Seed, r.tally.Steps, after, violations)
}

// first is the first line of a message.
func first(message string) string {
	line, _, _ := strings.Cut(message, "\n")
	return line
}
