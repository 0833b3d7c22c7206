package upgrade

import (
	"slices"
	"strings"
)

// Version is a source repository and a ref in it, with the commits behind the refs as far as they are known.
type Version struct {
	SourceRepo       string `json:"source_repo" db:"source_repo"`
	SourceRepoGitRef string `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	// SourceCommitHash is the full commit for which the ref stands; "" if nobody knows it.
	SourceCommitHash string `json:"source_commit_hash,omitempty" db:"source_commit_hash"`
	// DeploymentCommitHash is the full commit of the deployment repository; "" if nobody knows it. Type deployer has two
	// deployment repositories, one per phase: their commits are joined by JoinCommits.
	DeploymentCommitHash string `json:"deployment_commit_hash,omitempty" db:"deployment_commit_hash"`
}

// AtRef is the version without its commits.
func (v Version) AtRef() Version {
	return Version{SourceRepo: v.SourceRepo, SourceRepoGitRef: v.SourceRepoGitRef}
}

// Same says whether two versions are the same as far as anybody knows: repository and ref are equal, and no commit is
// known to differ. A commit that is not known on one side is no difference.
func (v Version) Same(o Version) bool {
	return v.AtRef() == o.AtRef() && !CommitsDiffer(v.SourceCommitHash, o.SourceCommitHash) &&
		!CommitsDiffer(v.DeploymentCommitHash, o.DeploymentCommitHash)
}

// Beside names the version for people who read it beside another one: by its ref, and by its commits where the ref
// alone does not tell the two apart.
func (v Version) Beside(o Version) string {
	switch {
	case v.AtRef() != o.AtRef():
		return v.SourceRepoGitRef
	case CommitsDiffer(v.SourceCommitHash, o.SourceCommitHash):
		return v.SourceRepoGitRef + " at commit " + ShortCommits(v.SourceCommitHash)
	case CommitsDiffer(v.DeploymentCommitHash, o.DeploymentCommitHash):
		return v.SourceRepoGitRef + " of deployment commit " + ShortCommits(v.DeploymentCommitHash)
	default:
		return v.SourceRepoGitRef
	}
}

// ShortCommits is the beginning of a commit, or of each of some joined ones, for people.
func ShortCommits(joined string) string {
	commits := strings.Split(joined, ",")
	for i, c := range commits {
		commits[i] = c[:min(len(c), 12)]
	}
	return strings.Join(commits, ",")
}

// CommitsDiffer says whether two commits are known and are not the same.
func CommitsDiffer(a, b string) bool { return a != "" && b != "" && a != b }

// JoinCommits joins the commits of a component's deployment repositories, in the order of the phases. If one of them is
// not known, nothing is known of the whole.
func JoinCommits(commits ...string) string {
	if slices.Contains(commits, "") {
		return ""
	}
	return strings.Join(commits, ",")
}

// CommitOf is the commit of a phase (1, 2 …) in what JoinCommits made, "" if that is not known.
func CommitOf(joined string, phase int) string {
	commits := strings.Split(joined, ",")
	if phase < 1 || phase > len(commits) {
		return ""
	}
	return commits[phase-1]
}

// Repairs says whether an upgrade from the recorded version brings back what is recorded: nobody has forced it, and no
// commit of its target is known to be another one. A rollback returns to a release that an operator chose.
func Repairs(recorded, target Version, t Trigger, force bool) bool {
	return t != TriggerRollback && !force && recorded.Same(target)
}
