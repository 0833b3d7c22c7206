package upgrade

import (
	"fmt"
	"slices"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/module"
)

// Proves says whether a kind of proof is enough for a type. Those that upgrade the others may be ready and deaf, and
// then nobody is left to put the next version right: a deployer has to answer its probe, an overseer to lead,
// manager-api to hear its own beats. Healthy units show none of that.
func Proves(k component.ProofKind, t component.Type) bool {
	return k != component.ProofUnits || (t != component.Manager && t != component.Overseer && t != component.Deployer)
}

// Need is what has to be seen before a phase counts as proven (docs/how-an-upgrade-works.md#proof).
type Need struct {
	Type          component.Type
	Service       string    // empty counts every module of the type
	Count         int       // how many instances the deploy left running
	Ref           string    // the target ref
	Commit        string    // its commit, which a module may report instead
	WorkflowBegan time.Time // a boot before this instant is no boot of the deploy
	WorkflowEnded time.Time // only beats after this count
	At            time.Time // when the modules were read, on the clock of their times
	// LiveWithin is how long ago a module may have been heard. A module that was last heard before that proves nothing.
	LiveWithin time.Duration
	// MinHealthy is over how long one boot must have beaten. With 0 one beat suffices.
	MinHealthy     time.Duration
	ProbeWanted    bool
	ProbeAnswered  bool
	LeaderHostname string // type overseer: who holds the lease
	// Instances are what the deploy left running, in its executor's words. Each of them must be proven by a module of its
	// own. nil: the executor was of a release that does not name instances, and any module of the type counts.
	Instances []Instance
}

// Instance is one instance that a deploy left running.
type Instance struct {
	Unit string // manager@1.service
	// Hostname is the name under which the instance beats. "": nobody knows it before, as with a container's id. Such an
	// instance is proven by a module whose hostname nobody had heard before the deploy.
	Hostname string
	// Applied says that the deploy started the instance anew: only a boot since then proves it.
	Applied bool
}

// ProofReason says what a proof still lacks; ProofComplete lacks nothing.
type ProofReason string

// The reasons, first one wins.
const (
	ProofComplete     ProofReason = "proven"
	ProofOtherVersion ProofReason = "other_version" // too few report the target, and some live ones report another
	ProofTooFew       ProofReason = "too_few_modules"
	ProofOtherHosts   ProofReason = "other_instances"   // enough modules report it, but not those that were deployed
	ProofDisputed     ProofReason = "hostname_disputed" // two hosts beat under the hostname of a module that is needed
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
	// Missing are the deployed instances of which no steady beat in the target version was heard.
	Missing []string `json:"missing,omitempty"`
	// Unnamed counts the instances that were proven by hostnames which nobody knew before the deploy.
	Unnamed int `json:"unnamed,omitempty"`
	// Disputed are hostnames under which two boots beat. Neither boot proves anything.
	Disputed []string `json:"disputed,omitempty"`
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
	case ProofOtherHosts:
		return fmt.Sprintf("%d of %d deployed instances report the target steadily; nothing was heard of %v",
			len(p.Hostnames), p.Wanted, p.Missing)
	case ProofDisputed:
		return fmt.Sprintf("%d of %d modules report the target, and two hosts beat under each of the hostnames %v: "+
			"give every host a HOSTNAME of its own", len(p.Hostnames), p.Wanted, p.Disputed)
	case ProofNoLeader:
		return "no proven overseer holds the lease of the exchange"
	case ProofNoProbe:
		return "the executor beats but has not answered its probe order"
	default:
		return string(p.Reason)
	}
}

// Prove judges the modules of an exchange against a need. The overseer judges with it, and manager-api checks that
// judgement again in the transaction that records it. If the need names instances, each of them must be proven.
// Otherwise as many modules as instances suffice. Modules of another version beside them are no obstacle: the deploy
// has left them alone, and eligibility reports them.
func Prove(n Need, modules []module.Module) Proof {
	p := Proof{Wanted: n.Count}
	var steady []module.Module
	for _, m := range modules {
		switch n.judge(m) {
		case provesTarget:
			steady = append(steady, m)
		case reportsOther:
			p.Others = append(p.Others, m.Hostname+" reports "+m.SourceRepoGitRef)
		case isDisputed:
			p.Disputed = append(p.Disputed, m.Hostname)
		case provesNothing:
		}
	}
	total := len(steady)
	if n.Instances != nil {
		p.Wanted = len(n.Instances)
		steady = n.deployed(steady, &p)
	}
	leader := false
	for _, m := range steady {
		p.Hostnames = append(p.Hostnames, m.Hostname)
		leader = leader || m.Hostname == n.LeaderHostname
		if m.SourceRepoGitRef == "" {
			p.Unversioned = append(p.Unversioned, m.Hostname)
		}
	}
	p.Reason = n.missing(p, total, leader)
	return p
}

// testimony is what one module says about a need.
type testimony uint8

const (
	provesNothing testimony = iota
	provesTarget
	reportsOther
	isDisputed
)

// judge says what a module's beats prove by themselves, whichever instance the module is.
func (n Need) judge(m module.Module) testimony {
	switch {
	case m.Type != n.Type || (n.Service != "" && m.Service != n.Service):
		return provesNothing
	case !m.Live(n.At, n.LiveWithin) || !m.LastSeen.After(n.WorkflowEnded):
		return provesNothing
	case m.Disputed(n.At, n.LiveWithin):
		return isDisputed
	case m.SourceRepoGitRef == "" && m.BootID != "" && m.BootSince.Before(n.WorkflowBegan):
		return provesNothing // the module was there before and does not tell its version
	case m.SourceRepoGitRef != "" && m.SourceRepoGitRef != n.Ref && (n.Commit == "" || m.SourceRepoGitRef != n.Commit):
		return reportsOther
	case m.LastSeen.Sub(later(m.SteadySince, n.WorkflowEnded)) < n.MinHealthy:
		return provesNothing
	default:
		return provesTarget
	}
}

// deployed returns the modules that prove the instances of the need, one module per instance, and notes which instances
// are missing. A module of a name that no instance bears proves only an instance whose name was not known, and only if
// the module was first heard after the workflow began.
func (n Need) deployed(steady []module.Module, p *Proof) []module.Module {
	byName := map[string]module.Module{}
	for _, m := range steady {
		byName[m.Hostname] = m
	}
	var proven []module.Module
	var unnamed []Instance
	for _, i := range n.Instances {
		m, heard := byName[i.Hostname]
		switch {
		case i.Hostname == "":
			unnamed = append(unnamed, i)
		case heard && (!i.Applied || m.BootID == "" || !m.BootSince.Before(n.WorkflowBegan)):
			proven = append(proven, m)
			delete(byName, i.Hostname)
		default:
			delete(byName, i.Hostname) // also an old boot: the name is this instance's
			p.Missing = append(p.Missing, i.Unit)
		}
	}
	for _, m := range steady {
		if _, free := byName[m.Hostname]; !free || len(unnamed) == 0 {
			continue
		}
		fits := slices.IndexFunc(unnamed, func(i Instance) bool { return !i.Applied || !m.FirstSeen.Before(n.WorkflowBegan) })
		if fits < 0 {
			continue
		}
		unnamed = slices.Delete(unnamed, fits, fits+1)
		proven = append(proven, m)
		p.Unnamed++
	}
	for _, i := range unnamed {
		p.Missing = append(p.Missing, i.Unit)
	}
	return proven
}

// missing names what the proof lacks. steady counts the modules that report the target, whichever instances they are.
func (n Need) missing(p Proof, steady int, leader bool) ProofReason {
	switch {
	case len(p.Hostnames) < p.Wanted && len(p.Disputed) > 0:
		return ProofDisputed
	case len(p.Hostnames) < p.Wanted && len(p.Others) > 0:
		return ProofOtherVersion
	case n.Instances != nil && len(p.Hostnames) < p.Wanted && steady >= p.Wanted:
		return ProofOtherHosts
	case len(p.Hostnames) < p.Wanted || p.Wanted < 1:
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
