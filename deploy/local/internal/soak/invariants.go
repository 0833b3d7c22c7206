package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Bounds of what the invariants allow.
const (
	tooLong     = 10 * time.Minute // that an upgrade may be open without an alert
	justEnded   = 5 * time.Second  // processes of an upgrade that has ended may still be seen for so long
	justStruck  = 30 * time.Second // what was hit by a fault may be down for so long
	drainWithin = 30 * time.Second // after the last fault the outbox is empty within this time
	staleOutbox = 90 * time.Second // a message waits no longer than this, counted from the end of a server's fault
)

// Invariant is one thing that must hold at every moment. Broken compares an observation with the one before it and says
// what does not hold; it reads nothing else. ID is that of docs/faults.md.
type Invariant struct {
	ID     string
	Says   string
	Wrong  Kind // what a break of it counts as
	Broken func(before, now Observation) []string
}

// Kind is how a run counts what went wrong.
type Kind string

// The three kinds.
const (
	Stuck   Kind = "stuck"
	Doubled Kind = "doubled"
	Wrong   Kind = "wrong"
)

// Invariants are checked after every step.
var Invariants = []Invariant{
	{"I1", "at most one open upgrade per component, and one running per exchange", Doubled, oneOpen},
	{"I2", "what was accepted stays, and ends or raises an alert", Stuck, acceptedEnds},
	{"I3", "no write under an old term or token", Wrong, noStaleWrite},
	{"I4", "terminal states stay as they are", Wrong, terminalStays},
	{"I5", "the recorded version is the one proven last, and nothing else runs", Wrong, recordedIsProven},
	{"I6", "no module is deleted or called inactive that was heard", Wrong, nobodyHeardIsDeleted},
	{"I7", "deployer and deployer-oa are never both down or unverified through our action", Wrong, pairIsKept},
	{"I8", "each message has one effect", Doubled, oneEffect},
	{"I9", "a state changes with its journal entry, and only so", Wrong, journalExplains},
	{"I10", "no secret in logs, answers, the journal or events", Wrong, noSecret},
	{"I11", "goroutines, descriptors and connections return to what they were", Wrong, nothingLeaks},
	{"I12", "nothing counts as published that the broker has not confirmed", Wrong, publishedIsConfirmed},
	{"I13", "the outbox drains", Stuck, outboxDrains},
	{"I14", "no judgement outside of its leader's time", Wrong, judgedByLeader},
	{"P4", "a good version is not blamed, a bad version is not recorded, and every way back succeeds", Wrong,
		rightIsRight},
}

// Violation is an invariant that does not hold.
type Violation struct {
	Invariant Invariant
	What      string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s (%s): %s", v.Invariant.ID, v.Invariant.Says, v.What)
}

// Check tries all invariants.
func Check(before, now Observation) []Violation {
	var all []Violation
	for _, i := range Invariants {
		for _, what := range i.Broken(before, now) {
			all = append(all, Violation{i, what})
		}
	}
	return all
}

// reports collects sentences.
type reports []string

func (r *reports) add(format string, args ...any) { *r = append(*r, fmt.Sprintf(format, args...)) }

func oneOpen(_, now Observation) []string {
	var r reports
	open := map[component.ID][]string{}
	var running []string
	for _, u := range now.open() {
		open[u.ComponentID] = append(open[u.ComponentID], u.ID)
		if u.State.Running() {
			running = append(running, u.ID)
		}
	}
	for id, ids := range open {
		if len(ids) > 1 {
			r.add("component %d has the open upgrades %v", id, ids)
		}
	}
	if len(running) > 1 {
		r.add("the upgrades %v run at once", running)
	}
	return r
}

func acceptedEnds(before, now Observation) []string {
	var r reports
	there := map[string]Upgrade{}
	for _, u := range now.Upgrades {
		there[u.ID] = u
	}
	for _, u := range before.Upgrades {
		if _, found := there[u.ID]; !found {
			r.add("upgrade %s of %s, which was %s, is gone", u.ID, u.Type, u.State)
		}
	}
	for _, u := range now.open() {
		told := slices.ContainsFunc(now.Events, func(e SystemEvent) bool { return e.UpgradeID == u.ID })
		if age := now.Now.Sub(u.Created); age > tooLong && !told {
			r.add("upgrade %s of %s is %s for %s, and nobody was told", u.ID, u.Type, u.State, age.Round(time.Second))
		}
	}
	of := map[string]Workflow{}
	for _, w := range now.Workflows {
		of[w.ID] = w
		if u := there[w.UpgradeID]; !u.State.Open() && w.Ended == nil {
			r.add("workflow %s goes on, and its upgrade %s is %s", w.ID, u.ID, u.State)
		}
	}
	for _, o := range now.Orders {
		u := there[of[o.WorkflowID].UpgradeID]
		if u.ID != "" && !u.State.Open() && !o.Ended() && o.Milestone != messages.MilestoneProbe {
			r.add("order %s (%s) is %s, and its upgrade %s is %s", o.ID, o.Milestone, o.State, u.ID, u.State)
		}
	}
	return r
}

func noStaleWrite(before, now Observation) []string {
	var r reports
	tokens := map[string]int64{}
	for _, l := range before.Leases {
		tokens[l.Name] = l.Token
	}
	for _, l := range now.Leases {
		if l.Token < tokens[l.Name] {
			r.add("the token of lease %s fell from %d to %d", l.Name, tokens[l.Name], l.Token)
		}
	}
	orders := map[string]int64{}
	for _, o := range before.Orders {
		orders[o.ID] = o.Token
	}
	for _, o := range now.Orders {
		if o.Token < orders[o.ID] {
			r.add("the token of order %s fell from %d to %d", o.ID, orders[o.ID], o.Token)
		}
		if o.ResultToken != 0 && o.ResultToken != o.Token {
			r.add("order %s is %s by a result under token %d, and its token is %d", o.ID, o.State, o.ResultToken, o.Token)
		}
	}
	claimed := map[string]int64{}
	for _, e := range now.Journal {
		if e.Code != "order_claimed" {
			continue
		}
		if e.Token <= claimed[e.OrderID] {
			r.add("order %s was claimed under token %d after token %d", e.OrderID, e.Token, claimed[e.OrderID])
		}
		claimed[e.OrderID] = e.Token
	}
	return r
}

func terminalStays(before, now Observation) []string {
	var r reports
	ended := map[string]Upgrade{}
	for _, u := range before.Upgrades {
		if !u.State.Open() {
			ended[u.ID] = u
		}
	}
	for _, u := range now.Upgrades {
		was, found := ended[u.ID]
		if found && (u.State != was.State || u.Code != was.Code || u.To != was.To || !same(u.Finished, was.Finished)) {
			r.add("upgrade %s was %s (%s) and is %s (%s)", u.ID, was.State, was.Code, u.State, u.Code)
		}
	}
	orders := map[string]string{}
	for _, o := range before.Orders {
		if o.Ended() {
			orders[o.ID] = o.State
		}
	}
	for _, o := range now.Orders {
		if was, found := orders[o.ID]; found && o.State != was {
			r.add("order %s was %s and is %s", o.ID, was, o.State)
		}
	}
	return r
}

func same(a, b *time.Time) bool {
	return a == b || (a != nil && b != nil && a.Equal(*b))
}

func recordedIsProven(_, now Observation) []string {
	var r reports
	proven := map[component.ID]string{}
	at := map[component.ID]int64{}
	for _, u := range now.Upgrades {
		moves := now.moves(u.ID)
		if u.State != upgrade.Completed || len(moves) == 0 {
			continue
		}
		if last := moves[len(moves)-1]; last.Seq > at[u.ComponentID] {
			at[u.ComponentID], proven[u.ComponentID] = last.Seq, u.To
		}
	}
	for _, c := range now.Components {
		want, found := proven[c.ID]
		if !found {
			want = stack.First
		}
		if c.Recorded != want {
			r.add("%s is recorded at %s, and was proven last at %s", c.Type, c.Recorded, want)
		}
	}
	for _, p := range now.Processes {
		v, own := service(p.Binary)
		ref := strings.TrimSuffix(p.Ref, "/real") // the service behind one that is forgetful
		if own && !slices.Contains(now.mayRun(v.Type), ref) {
			r.add("process %d (%s) runs %s, and %s may run %v", p.PID, p.Hostname, p.Ref, v.Type, now.mayRun(v.Type))
		}
	}
	return r
}

// mayRun are the versions of a type that may be seen in processes: the recorded one, and those between which an upgrade
// moves or has just moved.
func (o Observation) mayRun(t component.Type) []string {
	refs := []string{o.recorded(t)}
	for _, u := range o.Upgrades {
		if u.Type == t && (u.State.Running() || u.Finished != nil && o.Now.Sub(*u.Finished) < justEnded) {
			refs = append(refs, u.From, u.To)
		}
	}
	return refs
}

// service is the service of a binary, if it is one of ours.
func service(binary string) (stack.Service, bool) {
	for _, v := range stack.Own {
		if v.Name == binary {
			return v, true
		}
	}
	return stack.Service{}, false
}

func nobodyHeardIsDeleted(before, now Observation) []string {
	var r reports
	there := map[string]Module{}
	for _, m := range now.Modules {
		there[m.Hostname] = m
		_, beats := now.Told.Beating[m.Hostname]
		if beats && !now.Told.Silent[m.Hostname] && m.Status != messages.StatusActive {
			r.add("module %s beats and is %s", m.Hostname, m.Status)
		}
	}
	for _, m := range before.Modules {
		if _, found := there[m.Hostname]; !found && !now.Told.Silent[m.Hostname] {
			r.add("module %s, last heard %s ago, is gone", m.Hostname, now.Now.Sub(m.LastSeen).Round(time.Second))
		}
	}
	for i, e := range now.Journal {
		needed := map[string]time.Duration{"module_inactive": now.Told.Inactive, "module_deleted": now.Told.Delete}[e.Code]
		if needed == 0 || (len(before.Journal) > 0 && e.Seq <= before.Journal[len(before.Journal)-1].Seq) {
			continue
		}
		if at, found := leaderBefore(now.Journal[:i]); found && e.At.Sub(at) < needed {
			r.add("%s: %s, and its leader has led for %s only", e.Code, e.Message, e.At.Sub(at).Round(time.Second))
		}
		for _, hostname := range e.Hostnames {
			if !now.Told.Silent[hostname] {
				r.add("%s names %s, which was never told to be silent", e.Code, hostname)
			}
		}
	}
	return r
}

// leaderBefore is when the last leader of some entries began to lead.
func leaderBefore(entries []Entry) (time.Time, bool) {
	for _, e := range slices.Backward(entries) {
		if e.Code == "leader_changed" {
			return e.At, true
		}
	}
	return time.Time{}, false
}

func pairIsKept(_, now Observation) []string {
	var r reports
	deployer, deployerOA := stack.Own[2], stack.Own[3]
	for _, u := range now.open() {
		if u.Type != component.Deployer || u.Phase != 1 || u.State == upgrade.RollingBack {
			continue
		}
		for _, p := range now.Processes {
			if p.Binary == deployerOA.Name && p.Ref == u.To && u.To != u.From {
				r.add("deployer-oa runs %s, and the deployer has not proven it", u.To)
			}
		}
	}
	if now.Units == nil {
		return r
	}
	down := func(v stack.Service) bool { return now.Units[v.Unit(1)] != "active" }
	excused := func(v stack.Service) bool { return now.Now.Sub(now.Told.Struck[v.Unit(1)]) < justStruck }
	if down(deployer) && down(deployerOA) && !excused(deployer) && !excused(deployerOA) {
		r.add("both are down: %s is %q, %s is %q", deployer.Name, now.Units[deployer.Unit(1)], deployerOA.Name,
			now.Units[deployerOA.Unit(1)])
	}
	return r
}

func oneEffect(_, now Observation) []string {
	var r reports
	type key struct{ subject, what string }
	seen := map[key]int{}
	for _, w := range now.Workflows {
		seen[key{"upgrade " + w.UpgradeID, fmt.Sprintf("workflows of phase %d, restoring %t", w.Phase, w.Restoring)}]++
	}
	for _, e := range now.Journal {
		switch {
		case e.Code == "requested" && strings.HasPrefix(e.Subject, "upgrade/"), e.Event == upgrade.EventStart:
			seen[key{e.Subject, "entries " + e.Code}]++
		case e.Code == "probe_answered":
			seen[key{"order " + e.OrderID, "answers to its probe"}]++
		case e.Event != "" && !e.To.Open():
			seen[key{e.Subject, "ends"}]++
		}
	}
	for _, e := range now.Events {
		if e.UpgradeID != "" {
			seen[key{"upgrade " + e.UpgradeID, "events " + e.Type}]++
		}
	}
	for _, u := range now.Upgrades {
		if u.State == upgrade.Completed {
			seen[key{fmt.Sprintf("component %d", u.ComponentID), "completed upgrades to " + u.To}]++
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(seen), func(a, b key) int {
		return strings.Compare(a.subject+a.what, b.subject+b.what)
	}) {
		if seen[k] > 1 {
			r.add("%s has %d %s", k.subject, seen[k], k.what)
		}
	}
	return r
}

func journalExplains(before, now Observation) []string {
	var r reports
	for _, u := range now.Upgrades {
		state := upgrade.Requested
		for _, e := range now.moves(u.ID) {
			if e.From != state {
				r.add("upgrade %s: entry %d moves from %s, and the upgrade was %s", u.ID, e.Seq, e.From, state)
			}
			state = e.To
		}
		if u.State != state {
			r.add("upgrade %s is %s, and its journal says %s", u.ID, u.State, state)
		}
		requested := slices.ContainsFunc(now.Journal, func(e Entry) bool {
			return e.Subject == "upgrade/"+u.ID && e.Code == "requested"
		})
		if !requested {
			r.add("upgrade %s has no entry of its request", u.ID)
		}
	}
	claimed := map[string]int64{}
	for _, e := range now.Journal {
		if e.Code == "order_claimed" {
			claimed[e.OrderID] = e.Token
		}
	}
	for _, o := range now.Orders {
		if o.Milestone == messages.MilestoneResolve { // asked for before every check: the journal does not tell of them
			continue
		}
		if o.Token != claimed[o.ID] {
			r.add("order %s has token %d, and the journal's last claim of it has %d", o.ID, o.Token, claimed[o.ID])
		}
	}
	if n := len(before.Journal); n > 0 && (len(now.Journal) < n || now.Journal[0].Seq != before.Journal[0].Seq) {
		r.add("the journal had %d entries and has %d", n, len(now.Journal))
	}
	return r
}

func noSecret(_, now Observation) []string { return now.Leaked }

// nothingLeaks compares services at rest with the first time that they were at rest.
func nothingLeaks(before, now Observation) []string {
	var r reports
	first := map[string]Resources{}
	for _, at := range before.Resources {
		first[at.Name] = at
	}
	for _, at := range now.Resources {
		was, found := first[at.Name]
		if !found {
			continue
		}
		if at.Goroutines > 2*was.Goroutines+20 {
			r.add("%s has %d goroutines at rest, and had %d", at.Name, at.Goroutines, was.Goroutines)
		}
		if at.Files > 2*was.Files+20 {
			r.add("%s has %d open files or connections at rest, and had %d", at.Name, at.Files, was.Files)
		}
	}
	return r
}

func publishedIsConfirmed(_, now Observation) []string {
	var r reports
	if now.Outbox.Unproven > 0 {
		r.add("%d messages count as published, and their last outcome is not a confirm", now.Outbox.Unproven)
	}
	if now.Outbox.Forgotten > 0 {
		r.add("%d messages count as published, and were never sent", now.Outbox.Forgotten)
	}
	for _, queue := range slices.Sorted(maps.Keys(now.DeadLetters)) {
		if n := now.DeadLetters[queue]; n > 0 {
			r.add("%d messages are in %s", n, queue)
		}
	}
	return r
}

func outboxDrains(_, now Observation) []string {
	var r reports
	if now.Outbox.Waiting == 0 {
		return nil
	}
	if now.Outbox.Oldest > staleOutbox && now.Now.Sub(now.Told.Disturbed) > staleOutbox {
		r.add("%d messages wait, the oldest for %s", now.Outbox.Waiting, now.Outbox.Oldest.Round(time.Second))
	}
	if ended := now.Told.Ended; !ended.IsZero() && now.Now.Sub(ended) > drainWithin && now.Outbox.Oldest > drainWithin {
		r.add("%d messages wait %s after the last fault", now.Outbox.Waiting, now.Now.Sub(ended).Round(time.Second))
	}
	return r
}

// judgedByLeader wants every judgement to be made under the term of who leads: the term of the last change before it,
// and not resigned since.
func judgedByLeader(_, now Observation) []string {
	var r reports
	var leads int64
	for _, e := range now.Journal {
		switch {
		case e.Code == "leader_changed":
			if e.Term <= leads {
				r.add("term %d follows term %d", e.Term, leads)
			}
			leads = e.Term
		case e.Code == "leader_resigned" && e.Term == leads:
			leads = 0
		case judgement(e) && leads == 0:
			r.add("entry %d (%s of %s) was judged while nobody led", e.Seq, e.Code, e.Subject)
		case judgement(e) && e.Term != 0 && e.Term != leads:
			r.add("entry %d (%s of %s) was judged under term %d, and term %d led", e.Seq, e.Code, e.Subject, e.Term, leads)
		}
	}
	return r
}

// judgement says whether an entry is of what a leader alone may decide.
func judgement(e Entry) bool {
	switch e.Event {
	case upgrade.EventStart, upgrade.EventRefuse, upgrade.EventProven:
		return true
	default:
		return e.Code == "module_inactive" || e.Code == "module_deleted"
	}
}

func rightIsRight(_, now Observation) []string {
	var r reports
	bad := func(t component.Type, ref string) bool { return now.Told.Bad[ref] == t }
	for _, q := range now.Quarantines {
		if !bad(q.Type, q.Ref) {
			r.add("%s %s is good and in quarantine (%s)", q.Type, q.Ref, q.Reason)
		}
	}
	for _, u := range now.Upgrades {
		switch {
		case u.State == upgrade.RollbackFailed:
			r.add("the way back of upgrade %s of %s to %s failed: %s", u.ID, u.Type, u.To, u.Message)
		case u.State == upgrade.Completed && bad(u.Type, u.To):
			r.add("upgrade %s of %s to the bad version %s is completed", u.ID, u.Type, u.To)
		case u.Cause == upgrade.CauseVersion && !bad(u.Type, u.To):
			r.add("upgrade %s blames %s %s, which is good: %s, %s", u.ID, u.Type, u.To, u.Code, u.Message)
		}
	}
	return r
}
