package upgrade

import (
	"fmt"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/module"
)

// Proves says whether a kind of proof is enough for a type. Those that upgrade the others may be ready and deaf, and then
// nobody is left to put the next version right: a deployer has to answer its probe, an overseer to lead, manager-api to
// hear its own beats. Healthy units show none of that.
func Proves(k component.ProofKind, t component.Type) bool {
	return k != component.ProofUnits || (t != component.Manager && t != component.Overseer && t != component.Deployer)
}

// Need is what has to be seen before a phase counts as proven (design section 5, Proof).
type Need struct {
	Type           component.Type
	Service        string        // empty counts every module of the type
	Count          int           // how many instances the deploy left running
	Ref            string        // the target ref
	Commit         string        // its commit, which a module may report instead
	WorkflowBegan  time.Time     // a module that reports no version counts only if it booted after this
	WorkflowEnded  time.Time     // only beats after this count
	At             time.Time     // when the modules were read, on the clock of their times
	LiveWithin     time.Duration // a module that was last heard longer ago than this proves nothing: it may be dead
	MinHealthy     time.Duration // over how long one boot must have beaten; 0: one beat suffices
	ProbeWanted    bool
	ProbeAnswered  bool
	LeaderHostname string // type overseer: who holds the lease
}

// ProofReason says what a proof still lacks; ProofComplete lacks nothing.
type ProofReason string

// The reasons, first one wins.
const (
	ProofComplete     ProofReason = "proven"
	ProofOtherVersion ProofReason = "other_version" // too few report the target, and some live ones report another
	ProofTooFew       ProofReason = "too_few_modules"
	ProofNoLeader     ProofReason = "no_proven_leader"
	ProofNoProbe      ProofReason = "probe_unanswered"
)

// Proof is the outcome of Prove.
type Proof struct {
	Reason      ProofReason `json:"reason"`
	Hostnames   []string    `json:"hostnames"`             // the proven modules
	Unversioned []string    `json:"unversioned,omitempty"` // those of them that report no version
	Others      []string    `json:"others,omitempty"`      // "hostname reports ref" of live modules with another version
	Wanted      int         `json:"wanted"`
}

// OK reports whether nothing is missing.
func (p Proof) OK() bool { return p.Reason == ProofComplete }

// String says what is missing, for people.
func (p Proof) String() string {
	switch p.Reason {
	case ProofComplete:
		return fmt.Sprintf("%d of %d modules report the target", len(p.Hostnames), p.Wanted)
	case ProofOtherVersion:
		return fmt.Sprintf("%d of %d modules report the target, others do not: %v", len(p.Hostnames), p.Wanted, p.Others)
	case ProofTooFew:
		return fmt.Sprintf("only %d of %d modules report the target steadily", len(p.Hostnames), p.Wanted)
	case ProofNoLeader:
		return "no proven overseer holds the lease of the exchange"
	case ProofNoProbe:
		return "the executor beats but has not answered its probe order"
	default:
		return string(p.Reason)
	}
}

// Prove judges the modules of an exchange against a need. It is used by the overseer to judge and by manager-api
// to check that judgement again in the transaction that records it. Enough of them suffice: what runs beside
// them in another version is what the deploy has left alone, and eligibility's business.
func Prove(n Need, modules []module.Module) Proof {
	p := Proof{Wanted: n.Count}
	leader := false
	for _, m := range modules {
		if m.Type != n.Type || (n.Service != "" && m.Service != n.Service) || !m.Live(n.At, n.LiveWithin) || !m.LastSeen.After(n.WorkflowEnded) {
			continue
		}
		if m.SourceRepoGitRef == "" && m.BootID != "" && m.BootSince.Before(n.WorkflowBegan) {
			continue // it was there before and tells nothing of its version
		}
		if m.SourceRepoGitRef != "" && m.SourceRepoGitRef != n.Ref && (n.Commit == "" || m.SourceRepoGitRef != n.Commit) {
			p.Others = append(p.Others, m.Hostname+" reports "+m.SourceRepoGitRef)
			continue
		}
		if m.LastSeen.Sub(later(m.SteadySince, n.WorkflowEnded)) < n.MinHealthy {
			continue
		}
		p.Hostnames = append(p.Hostnames, m.Hostname)
		leader = leader || m.Hostname == n.LeaderHostname
		if m.SourceRepoGitRef == "" {
			p.Unversioned = append(p.Unversioned, m.Hostname)
		}
	}
	p.Reason = n.missing(p, leader)
	return p
}

func (n Need) missing(p Proof, leader bool) ProofReason {
	switch {
	case len(p.Hostnames) < n.Count && len(p.Others) > 0:
		return ProofOtherVersion
	case len(p.Hostnames) < n.Count || n.Count < 1:
		return ProofTooFew
	case n.Type == component.Overseer && !leader:
		return ProofNoLeader
	case n.ProbeWanted && !n.ProbeAnswered:
		return ProofNoProbe
	default:
		return ProofComplete
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
