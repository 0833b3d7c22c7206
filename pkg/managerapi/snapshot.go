package managerapi

import (
	"slices"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/eligibility"
	"github.com/openaperture/openaperture/pkg/silence"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Ref is the gold standard of a type, nil without one.
func (s Snapshot) Ref(t component.Type) *component.Ref {
	for i := range s.Refs {
		if s.Refs[i].Type == t {
			return &s.Refs[i]
		}
	}
	return nil
}

// Refused are the versions of a type that are in quarantine, with the commits that they bind.
func (s Snapshot) Refused(t component.Type) []upgrade.Version {
	var list []upgrade.Version
	for _, q := range s.Quarantines { // none of them has expired
		if q.ComponentType == t {
			list = append(list, q.Version())
		}
	}
	return list
}

// Version is what is refused.
func (q Quarantine) Version() upgrade.Version {
	return upgrade.Version{SourceRepo: q.SourceRepo, SourceRepoGitRef: q.SourceRepoGitRef,
		SourceCommitHash: q.SourceCommitHash, DeploymentCommitHash: q.DeploymentCommitHash}
}

// Absence says whether the instances of a component are all gone.
func (s Snapshot) Absence(c component.Component) eligibility.Absence {
	if s.MissingAfterMS <= 0 {
		return eligibility.Absence{}
	}
	i := slices.IndexFunc(s.Heard, func(h component.Heard) bool { return h.ComponentID == c.ID })
	if i < 0 {
		return eligibility.Absence{}
	}
	var covered silence.Covered
	if l := s.Lease; l != nil && l.Covering && l.CoveredSince != nil && l.CoveredUntil != nil {
		covered = silence.Covered{Since: *l.CoveredSince, Until: *l.CoveredUntil}
	}
	return eligibility.Absent(c, s.Counts, s.Heard[i], covered, time.Duration(s.MissingAfterMS)*time.Millisecond)
}

// Tips are what git hosts said last about a component's gold standard and its deployment repository. What they said
// before since does not count. A deployer's two deployment repositories are one tip, with both commits joined.
func (s Snapshot) Tips(c component.Component, since time.Time) (source, deployment component.Tip) {
	if ref := s.Ref(c.Type); ref != nil {
		source = s.tip(ref.SourceRepo, ref.SourceRepoGitRef, since)
	}
	var commits []string
	for _, phase := range upgrade.PhasesOf(c.Type) {
		one := s.tip(phase.DeploymentRepo(c.DeploymentRepo), c.DeploymentRepoGitRef, since)
		commits = append(commits, one.Commit)
		if deployment.Error == "" {
			deployment = one
		}
	}
	deployment.Commit = upgrade.JoinCommits(commits...)
	return source, deployment
}

func (s Snapshot) tip(repo, ref string, since time.Time) component.Tip {
	for _, r := range s.Resolved {
		if r.Repo != repo || r.Ref != ref {
			continue
		}
		t := component.Tip{Kind: r.Kind, Commit: r.Commit, Error: r.Error}
		if r.At.Before(since) {
			t.Commit = ""
		}
		return t
	}
	return component.Tip{}
}
