package upgrade

import (
	"slices"
	"strings"
)

// Version is a source repository and a ref in it, with the commits behind the refs as far as they are known.
type Version struct {
	SourceRepo       string `json:"source_repo"`
	SourceRepoGitRef string `json:"source_repo_git_ref"`
	// SourceCommitHash is the full commit for which the ref stands; "" if nobody knows it.
	SourceCommitHash string `json:"source_commit_hash,omitempty"`
	// DeploymentCommitHash is the full commit of the deployment repository; "" if nobody knows it. Type deployer has two
	// deployment repositories, one per phase: their commits are joined by JoinCommits.
	DeploymentCommitHash string `json:"deployment_commit_hash,omitempty"`
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
