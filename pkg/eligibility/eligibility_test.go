package eligibility_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/eligibility"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

const (
	repo    = "https://git.example/overseer"
	commit1 = "1111111111111111111111111111111111111111"
	commit2 = "2222222222222222222222222222222222222222"
)

var target = upgrade.Version{SourceRepo: repo, SourceRepoGitRef: "v2"}

type change func(*eligibility.Input)

// given is a valid input, an automatic check that finds v2 wanted and v1 recorded, with changes.
func given(changes ...change) eligibility.Input {
	in := eligibility.Input{
		Component: component.Component{ID: 1, ExchangeID: 7, Type: component.Overseer, SourceRepo: repo,
			SourceRepoGitRef: "v1",
			DeploymentRepo:   "https://git.example/overseer_deploy", DeploymentRepoGitRef: "main", Strategy: component.Hourly},
		Ref:     &component.Ref{Type: component.Overseer, SourceRepo: repo, SourceRepoGitRef: "v2", AutoUpgradeEnabled: true},
		Trigger: upgrade.TriggerHourly,
		Counts: []module.Count{live("deployer", "v1"), live("deployer-oa", "v1"),
			{Type: component.Overseer, SourceRepoGitRef: "v1", Live: 1, Total: 1}},
	}
	for _, c := range changes {
		c(&in)
	}
	return in
}

func live(service, ref string) module.Count {
	return module.Count{Type: component.Deployer, Service: service, SourceRepoGitRef: ref, Status: module.Active, Live: 1,
		Total: 1}
}

func withCommit(hash string) change {
	return func(in *eligibility.Input) { in.Component.SourceCommitHash = hash }
}
func withoutRef(in *eligibility.Input) { in.Ref = nil }
func withOpen(in *eligibility.Input)   { in.Open = true }
func withManual(in *eligibility.Input) { in.Component.Strategy = component.Manual }
func asRequest(in *eligibility.Input)  { in.Trigger = upgrade.TriggerRequest }
func asRollback(in *eligibility.Input) {
	in.Trigger, in.Release = upgrade.TriggerRollback, upgrade.Version{SourceRepo: repo, SourceRepoGitRef: "v0"}
}
func withForce(in *eligibility.Input)          { in.Trigger, in.Force = upgrade.TriggerRequest, true }
func withBlankRepo(in *eligibility.Input)      { in.Component.DeploymentRepo = " \t" }
func withBlankRepoRef(in *eligibility.Input)   { in.Component.DeploymentRepoGitRef = "" }
func withAutoOff(in *eligibility.Input)        { in.Ref.AutoUpgradeEnabled = false }
func withBlankSource(in *eligibility.Input)    { in.Ref.SourceRepo = "" }
func withBlankSourceRef(in *eligibility.Input) { in.Ref.SourceRepoGitRef = "  " }
func withQuarantine(in *eligibility.Input)     { in.Quarantined = []upgrade.Version{target} }
func withOtherQuarantine(in *eligibility.Input) {
	in.Quarantined = []upgrade.Version{{SourceRepo: repo, SourceRepoGitRef: "v3"}}
}
func withLatest(in *eligibility.Input) {
	in.Component.SourceRepoGitRef = "v2"
	in.Counts[2].SourceRepoGitRef = "v2"
}
func withRunning(ref string) change {
	return func(in *eligibility.Input) { in.Counts[2].SourceRepoGitRef = ref }
}
func withRecorded(ref string) change {
	return func(in *eligibility.Input) { in.Component.SourceRepoGitRef = ref }
}
func withLive(n int) change   { return func(in *eligibility.Input) { in.Counts[2].Live = n } }
func withStayed(n int) change { return func(in *eligibility.Input) { in.Counts[2].Stayed = n } }
func withDead(service string) change {
	return func(in *eligibility.Input) {
		for i := range in.Counts {
			if in.Counts[i].Service == service {
				in.Counts[i].Live = 0
			}
		}
	}
}
func ofType(t component.Type) change {
	return func(in *eligibility.Input) { in.Component.Type, in.Ref.Type, in.Counts[2].Type = t, t, t }
}
func withDeployerReporting(ref string) change {
	return func(in *eligibility.Input) { in.Counts[0].SourceRepoGitRef = ref }
}
func withAbsence(r eligibility.AbsenceReason) change {
	return func(in *eligibility.Input) {
		in.Counts[2].Live = 0
		in.Absence = eligibility.Absence{Reason: r, Since: time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)}
	}
}
func withDeployersAt(ref string) change { return func(in *eligibility.Input) { in.Deployers = ref } }

var _ = Describe("Eligibility", func() {
	DescribeTable("the first refusal wins",
		func(in eligibility.Input, want eligibility.Reason) {
			Expect(eligibility.Judge(in).Reason).To(Equal(want))
		},
		Entry("another version is wanted: eligible", given(), eligibility.Eligible),
		Entry("nothing was ever recorded: eligible", given(withRecorded(""), withRunning("")), eligibility.Eligible),
		Entry("the type has no ref", given(withoutRef), eligibility.NoRef),
		Entry("no ref is said before an open upgrade", given(withoutRef, withOpen), eligibility.NoRef),
		Entry("an upgrade is open", given(withOpen), eligibility.UpgradeOpen),
		Entry("an open upgrade is said before the manual strategy", given(withOpen, withManual), eligibility.UpgradeOpen),
		Entry("force does not override an open upgrade", given(withForce, withOpen), eligibility.UpgradeOpen),
		Entry("a manual component is not checked by itself (C7)", given(withManual), eligibility.StrategyManual),
		Entry("an explicit request upgrades a manual component", given(withManual, asRequest), eligibility.Eligible),
		Entry("the manual strategy is said before a blank deployment repository", given(withManual, withBlankRepo),
			eligibility.StrategyManual),
		Entry("the deployment repository is white space only", given(withBlankRepo), eligibility.DeploymentRepoBlank),
		Entry("the deployment ref is blank", given(withBlankRepoRef), eligibility.DeploymentRepoBlank),
		Entry("force does not override a blank deployment repository", given(withForce, withBlankRepo),
			eligibility.DeploymentRepoBlank),
		Entry("a blank deployment repository is said before disabled upgrades", given(withBlankRepo, withAutoOff),
			eligibility.DeploymentRepoBlank),
		Entry("automatic upgrades are disabled", given(withAutoOff), eligibility.AutoUpgradeDisabled),
		Entry("a request does not override disabled upgrades", given(withAutoOff, asRequest),
			eligibility.AutoUpgradeDisabled),
		Entry("force overrides disabled upgrades", given(withAutoOff, withForce), eligibility.Eligible),
		Entry("disabled upgrades are said before a blank ref", given(withAutoOff, withBlankSource),
			eligibility.AutoUpgradeDisabled),
		Entry("the ref's source repository is blank", given(withBlankSource), eligibility.RefBlank),
		Entry("the ref's git ref is blank", given(withBlankSourceRef), eligibility.RefBlank),
		Entry("force does not override a blank ref", given(withForce, withBlankSourceRef), eligibility.RefBlank),
		Entry("the target is quarantined here (C10, R8)", given(withQuarantine), eligibility.Quarantined),
		Entry("a request does not override a quarantine", given(withQuarantine, asRequest), eligibility.Quarantined),
		Entry("force overrides a quarantine", given(withQuarantine, withForce), eligibility.Eligible),
		Entry("a quarantine of another ref does not matter", given(withOtherQuarantine), eligibility.Eligible),
		Entry("a quarantine is said before a missing executor", given(withQuarantine, withDead("deployer-oa")),
			eligibility.Quarantined),
		Entry("deployer-oa is needed for one of OpenAperture's own", given(withDead("deployer-oa")), eligibility.NoExecutor),
		Entry("deployer is not needed for one of OpenAperture's own", given(withDead("deployer")), eligibility.Eligible),
		Entry("deployer is needed for a user's own type", given(ofType("billing"), withDead("deployer")),
			eligibility.NoExecutor),
		Entry("deployer-oa is not needed for a user's own type", given(ofType("billing"), withDead("deployer-oa")),
			eligibility.Eligible),
		Entry("force does not override a missing executor", given(withForce, withDead("deployer-oa")),
			eligibility.NoExecutor),
		Entry("a missing executor is said before already the latest", given(withLatest, withDead("deployer-oa")),
			eligibility.NoExecutor),
		Entry("recorded and running are the target", given(withLatest), eligibility.AlreadyLatest),
		Entry("recorded is the target and nobody reports a version", given(withRecorded("v2"), withRunning("")),
			eligibility.AlreadyLatest),
		Entry("recorded is the target, but a live module reports another", given(withRecorded("v2")), eligibility.Eligible),
		Entry("recorded is the target, and its upgrade left a live module of another version alone",
			given(withRecorded("v2"), withStayed(1)), eligibility.StrayModules),
		Entry("which a newer target does not look at", given(withStayed(1)), eligibility.Eligible),
		Entry("recorded is the target, and one of two others came after its upgrade",
			given(withRecorded("v2"), withStayed(1), withLive(2)), eligibility.Eligible),
		Entry("modules of the target that stayed are no strays", given(withLatest, withStayed(1)), eligibility.AlreadyLatest),
		Entry("all instances are gone: a repair (fault 17)", given(withLatest, withAbsence(eligibility.RepairDue)),
			eligibility.Eligible),
		Entry("… of a request, too", given(withLatest, withAbsence(eligibility.RepairDue), asRequest),
			eligibility.Eligible),
		Entry("… not yet", given(withLatest, withAbsence(eligibility.RepairWaits)), eligibility.AlreadyLatest),
		Entry("… while nobody listens", given(withLatest, withAbsence(eligibility.NotCovered)), eligibility.AlreadyLatest),
		Entry("… of a manual component: nothing", given(withLatest, withAbsence(eligibility.RepairDue), withManual),
			eligibility.StrategyManual),
		Entry("… while automatic upgrades are disabled: nothing",
			given(withLatest, withAbsence(eligibility.RepairDue), withAutoOff), eligibility.AutoUpgradeDisabled),
		Entry("… and the recorded version has failed here: nothing",
			given(withLatest, withAbsence(eligibility.RepairDue), withQuarantine), eligibility.Quarantined),
		Entry("… and nobody can execute it", given(withLatest, withAbsence(eligibility.RepairDue), withDead("deployer-oa")),
			eligibility.NoExecutor),
		Entry("… and a repair did not bring them back", given(withLatest, withAbsence(eligibility.RepairTried)),
			eligibility.NotBack),
		Entry("force overrides that", given(withLatest, withAbsence(eligibility.RepairTried), withForce),
			eligibility.Eligible),
		Entry("force overrides stray modules", given(withRecorded("v2"), withStayed(1), withForce), eligibility.Eligible),
		Entry("force overrides already the latest", given(withLatest, withForce), eligibility.Eligible),
		Entry("recorded is the target, and a live module reports its commit",
			given(withRecorded("v2"), withCommit(commit1), withRunning(commit1)), eligibility.AlreadyLatest),
		Entry("recorded is the target, but a live module reports an older commit of it",
			given(withRecorded("v2"), withCommit(commit1), withRunning(commit2)), eligibility.Eligible),
		Entry("recorded is the target, of a commit that nobody knows", given(withRecorded("v2"), withRunning(commit2)),
			eligibility.AlreadyLatest),
		Entry("a longer ref that begins alike is another version", given(withRecorded("v2"), withRunning("v2.1")),
			eligibility.Eligible),
	)

	DescribeTable("the deployers are replaced only by a peer that is live at its recorded version (D3, I7)",
		func(in eligibility.Input, want eligibility.Reason) {
			Expect(eligibility.Judge(in).Reason).To(Equal(want))
		},
		Entry("both live at the recorded version", given(ofType(component.Deployer), withDeployersAt("v1")),
			eligibility.Eligible),
		Entry("nothing recorded yet: both live suffices", given(ofType(component.Deployer), withDeployersAt("")),
			eligibility.Eligible),
		Entry("no deployer", given(ofType(component.Deployer), withDeployersAt("v1"), withDead("deployer")),
			eligibility.NoExecutor),
		Entry("no deployer-oa", given(ofType(component.Deployer), withDeployersAt("v1"), withDead("deployer-oa")),
			eligibility.NoExecutor),
		Entry("live, but at another version than recorded", given(ofType(component.Deployer), withDeployersAt("v0")),
			eligibility.NoExecutor),
		Entry("live at another commit of the recorded version: it can still do the work",
			given(ofType(component.Deployer), withDeployersAt("v1"), withCommit(commit1), withDeployerReporting(commit2)),
			eligibility.Eligible),
		Entry("another type does not ask at which version its executor is", given(withDeployersAt("v0")),
			eligibility.Eligible),
	)

	DescribeTable("a rollback asks for executors only",
		func(in eligibility.Input, want eligibility.Reason) {
			v := eligibility.Judge(in)
			Expect(v.Reason).To(Equal(want))
			Expect(v.Target.SourceRepoGitRef).To(Equal("v0"))
		},
		Entry("whatever the gold standard says", given(asRollback, withAutoOff, withBlankRepo, withManual),
			eligibility.Eligible),
		Entry("without any ref", given(asRollback, withoutRef), eligibility.Eligible),
		Entry("while another upgrade is open", given(asRollback, withOpen), eligibility.UpgradeOpen),
		Entry("without an executor", given(asRollback, withDead("deployer-oa")), eligibility.NoExecutor),
		Entry("by deployers that are not at their recorded version",
			given(ofType(component.Deployer), asRollback, withDeployersAt("v9")), eligibility.Eligible),
	)

	DescribeTable("what a module reports is compared as a whole string",
		func(reported, ref, commit string, other bool) {
			Expect(eligibility.ReportsOther(reported, ref, commit)).To(Equal(other))
		},
		Entry("no version", "", "v2", "", false),
		Entry("the ref", "v2", "v2", "", false),
		Entry("the ref's commit", commit1, "v2", commit1, false),
		Entry("another ref", "v1", "v2", "", true),
		Entry("another commit than the known one", commit2, "v2", commit1, true),
		Entry("a commit that cannot be compared with the name", commit1, "v2", "", false),
		Entry("another commit than the commit that is recorded", commit1, commit2, "", true),
		Entry("an abbreviated commit is a name", "1111111", "v2", "", true),
	)

	It("says the target with every verdict that knows one", func() {
		Expect(eligibility.Judge(given()).Target).To(Equal(target))
		Expect(eligibility.Judge(given(withOpen)).Target).To(Equal(target))
		Expect(eligibility.Judge(given(withoutRef)).Target).To(BeZero())
	})

	It("has a sentence of its own for every reason", func() {
		seen := map[string]bool{}
		for _, r := range eligibility.Reasons {
			text := eligibility.Verdict{Reason: r, Target: target, Detail: "deployment_repo"}.String()
			Expect(text).NotTo(Equal(string(r)))
			Expect(strings.Count(text, " ")).To(BeNumerically(">", 2), text)
			Expect(seen).NotTo(HaveKey(text))
			seen[text] = true
		}
	})

	DescribeTable("a sentence says what to do",
		func(in eligibility.Input, want string) { Expect(eligibility.Judge(in).String()).To(Equal(want)) },
		Entry("no ref", given(withoutRef), "no gold standard: create a system component ref of type overseer"),
		Entry("blank deployment ref", given(withBlankRepoRef), "the component's deployment_repo_git_ref is blank: set it"),
		Entry("quarantine", given(withQuarantine),
			"v2 failed here and is in quarantine: set another ref, push a fix, clear the quarantine, or request the upgrade "+
				"with force"),
		Entry("strays", given(withRecorded("v2"), withStayed(1)),
			"v2 is recorded, and the last upgrade to it left 1 live module of another version alone: "+
				"stop what the deployment repository does not name any more, or request the upgrade with force"),
		Entry("no executor", given(withDead("deployer-oa")),
			"no live deployer-oa is here to execute it: start it, or wait until it is heard"),
		Entry("executor at another version", given(ofType(component.Deployer), withDeployersAt("v0")),
			"no live deployer-oa reports its recorded version v0: start it, or wait until it is heard"),
	)
})

var _ = Describe("The commits behind the refs (fault 20)", func() {
	const (
		commit3 = "3333333333333333333333333333333333333333"
		deploy1 = "d111111111111111111111111111111111111111"
		deploy2 = "d222222222222222222222222222222222222222"
	)
	// main has the branch main recorded and wanted, at commit1 and deploy1, which is what the git hosts say.
	main := func(changes ...change) eligibility.Input {
		in := given(withRecorded("main"), withRunning("main"))
		in.Ref.SourceRepoGitRef = "main"
		in.Component.SourceCommitHash, in.Component.DeploymentCommitHash = commit1, deploy1
		in.Source = component.Tip{Kind: component.Branch, Commit: commit1}
		in.Deployment = component.Tip{Kind: component.Branch, Commit: deploy1}
		for _, c := range changes {
			c(&in)
		}
		return in
	}
	tip := func(commit string) change { return func(in *eligibility.Input) { in.Source.Commit = commit } }
	deployment := func(commit string) change { return func(in *eligibility.Input) { in.Deployment.Commit = commit } }
	unknownBaseline := func(in *eligibility.Input) {
		in.Component.SourceCommitHash, in.Component.DeploymentCommitHash = "", ""
	}
	tag := func(in *eligibility.Input) { in.Source.Kind = component.Tag }
	follow := func(f bool) change { return func(in *eligibility.Input) { in.Ref.Follow = &f } }
	followDeployment := func(in *eligibility.Input) { in.Component.FollowDeployment = true }
	refused := func(source, deployment string) change {
		return func(in *eligibility.Input) {
			in.Quarantined = append(in.Quarantined, upgrade.Version{SourceRepo: repo,
				SourceRepoGitRef: in.Ref.SourceRepoGitRef, SourceCommitHash: source, DeploymentCommitHash: deployment})
		}
	}
	at := func(source, deployment string) [2]string { return [2]string{source, deployment} }

	DescribeTable("decide where the ref is recorded already",
		func(in eligibility.Input, want eligibility.Reason, target [2]string, note string) {
			v := eligibility.Judge(in)
			Expect(v.Reason).To(Equal(want))
			Expect(v.Target.AtRef()).To(Equal(upgrade.Version{SourceRepo: repo, SourceRepoGitRef: "main"}))
			Expect(at(v.Target.SourceCommitHash, v.Target.DeploymentCommitHash)).To(Equal(target))
			Expect(v.Note).To(Equal(note))
			Expect(v.Repair).To(BeFalse())
		},
		Entry("nothing has moved", main(), eligibility.AlreadyLatest, at(commit1, deploy1), ""),
		Entry("nobody has asked the git host: an unknown commit is no difference", main(tip(""), deployment("")),
			eligibility.AlreadyLatest, at(commit1, deploy1), ""),
		Entry("a branch has moved: an upgrade", main(tip(commit2)), eligibility.Eligible, at(commit2, deploy1),
			"main has moved from commit 111111111111 to 222222222222"),
		Entry("… with the deployment repository's commit of today", main(tip(commit2), deployment(deploy2)),
			eligibility.Eligible,
			at(commit2, deploy2), "main has moved from commit 111111111111 to 222222222222"),
		Entry("… also for a request", main(asRequest, tip(commit2)), eligibility.Eligible, at(commit2, deploy1),
			"main has moved from commit 111111111111 to 222222222222"),
		Entry("… but not of a manual component by itself", main(withManual, tip(commit2)), eligibility.StrategyManual,
			at(commit2, deploy1), ""),
		Entry("a branch that is not to be followed has moved", main(follow(false), tip(commit2)), eligibility.AlreadyLatest,
			at(commit1, deploy1),
			"main has moved from commit 111111111111 to 222222222222, which is not followed: set follow of "+
				"the ref to true, set another ref, or request the upgrade with force"),
		Entry("a tag was moved: reported only", main(tag, tip(commit2)), eligibility.AlreadyLatest, at(commit1, deploy1),
			"main has moved from commit 111111111111 to 222222222222, which is not followed: set follow of the ref to true, "+
				"set another ref, or request the upgrade with force"),
		Entry("a tag was moved that is to be followed: an upgrade", main(tag, follow(true), tip(commit2)),
			eligibility.Eligible,
			at(commit2, deploy1), "main has moved from commit 111111111111 to 222222222222"),
		Entry("a tag was moved, and force is asked for", main(tag, withForce, tip(commit2)), eligibility.Eligible,
			at(commit2, deploy1), ""),
		Entry("the deployment repository has moved: no upgrade", main(deployment(deploy2)), eligibility.AlreadyLatest,
			at(commit1, deploy1), ""),
		Entry("the deployment repository has moved, and the component follows it",
			main(followDeployment, deployment(deploy2)),
			eligibility.Eligible, at(commit1, deploy2),
			"the deployment repository has moved from commit d11111111111 to d22222222222"),
		Entry("… but a moved tag does not come along", main(followDeployment, deployment(deploy2), tag, tip(commit2)),
			eligibility.Eligible, at(commit1, deploy2), "main has moved from commit 111111111111 to 222222222222, which is not "+
				"followed: set follow of the ref to true, set another ref, or request the upgrade with force; "+
				"the deployment repository has moved from commit d11111111111 to d22222222222"),
		Entry("nobody knows what was deployed: reported, not acted on", main(unknownBaseline, tip(commit2)),
			eligibility.AlreadyLatest, at("", ""), "main stands for commit 222222222222, and nobody knows the commit that was "+
				"deployed: request the upgrade with force, then new commits are followed"),
		Entry("… nor of the deployment repository", main(unknownBaseline, followDeployment, tip(""), deployment(deploy2)),
			eligibility.AlreadyLatest, at("", ""), "the deployment repository is at commit d22222222222, and nobody knows the "+
				"commit that was deployed: request the upgrade with force, then new commits are followed"),
		Entry("nobody knows what was deployed, and the ref is a tag", main(unknownBaseline, tag), eligibility.AlreadyLatest,
			at("", ""), ""),
		Entry("the git host is down: nothing changes, and it is said", main(func(in *eligibility.Input) {
			in.Source.Error, in.Deployment.Error = "git.example does not answer", "nor does that of the deployment"
		}), eligibility.AlreadyLatest, at(commit1, deploy1),
			"new commits of the ref are not known: git.example does not answer"),
		Entry("both git hosts are down, of a component that follows both",
			main(followDeployment, func(in *eligibility.Input) {
				in.Source.Error, in.Deployment.Error = "A does not answer", "B does not answer"
			}), eligibility.AlreadyLatest, at(commit1, deploy1), "new commits of the ref are not known: A does not answer; "+
				"new commits of the deployment repository are not known: B does not answer"),
		// quarantine
		Entry("what failed is wanted still", main(tip(commit2), refused(commit2, deploy1)), eligibility.Quarantined,
			at(commit2, deploy1), ""),
		Entry("a fix in the source: tried", main(tip(commit3), refused(commit2, deploy1)), eligibility.Eligible,
			at(commit3, deploy1), "main has moved from commit 111111111111 to 333333333333"),
		Entry("a fix in the deployment repository: tried", main(tip(commit2), deployment(deploy2), refused(commit2, deploy1)),
			eligibility.Eligible, at(commit2, deploy2), "main has moved from commit 111111111111 to 222222222222"),
		Entry("nobody knows whether there is a fix", main(tip(""), deployment(""), refused(commit2, deploy1)),
			eligibility.Quarantined, at("", ""), ""),
		Entry("a quarantine without commits binds the ref", main(tip(commit2), refused("", "")), eligibility.Quarantined,
			at(commit2, deploy1), ""),
		Entry("the branch is back at what was proven", main(refused(commit2, deploy1)), eligibility.AlreadyLatest,
			at(commit1, deploy1), ""),
	)

	DescribeTable("come along with another ref",
		func(in eligibility.Input, want eligibility.Reason, target [2]string) {
			in.Component.SourceRepoGitRef = "v1"
			v := eligibility.Judge(in)
			Expect(v.Reason).To(Equal(want))
			Expect(at(v.Target.SourceCommitHash, v.Target.DeploymentCommitHash)).To(Equal(target))
		},
		Entry("as far as they are known", main(tip(commit2), deployment("")), eligibility.Eligible, at(commit2, "")),
		Entry("of a tag too", main(tag, tip(commit2)), eligibility.Eligible, at(commit2, deploy1)),
		Entry("a tag that failed here", main(tag, tip(commit2), refused(commit2, deploy1)), eligibility.Quarantined,
			at(commit2, deploy1)),
		Entry("a tag that was moved after it failed here: what failed is gone",
			main(tag, tip(commit3), refused(commit2, deploy1)),
			eligibility.Eligible, at(commit3, deploy1)),
		Entry("a ref that is a commit stands for itself", main(tip(""), func(in *eligibility.Input) {
			in.Ref.SourceRepoGitRef = commit3
		}), eligibility.Eligible, at(commit3, deploy1)),
	)

	DescribeTable("of a repair are those of the proven release",
		func(in eligibility.Input) {
			in.Counts[2].SourceRepoGitRef = "v0"
			v := eligibility.Judge(in)
			Expect(v.Reason).To(Equal(eligibility.Eligible))
			Expect(v.Repair).To(BeTrue())
			Expect(at(v.Target.SourceCommitHash, v.Target.DeploymentCommitHash)).To(Equal(at(commit1, deploy1)))
			Expect(v.String()).To(ContainSubstring("the proven release is deployed again"))
		},
		Entry("nothing has moved", main()),
		Entry("a tag was moved", main(tag, tip(commit2))),
		Entry("the deployment repository has moved", main(deployment(deploy2))),
		Entry("what the branch moved to has failed here", main(tip(commit2), refused(commit2, deploy1))),
		Entry("nobody has asked the git host", main(tip(""), deployment(""))),
	)

	It("do not keep a new commit back for a repair: the upgrade replaces the old instance too", func() {
		in := main(tip(commit2), withRunning("v0"))
		v := eligibility.Judge(in)
		Expect(v.Repair).To(BeFalse())
		Expect(v.Target.SourceCommitHash).To(Equal(commit2))
	})

	DescribeTable("of a component whose instances are all gone",
		func(in eligibility.Input, want eligibility.Reason, ref, commit string, repair bool) {
			v := eligibility.Judge(in)
			Expect(v.Reason).To(Equal(want), v.String())
			Expect([]any{v.Target.SourceRepoGitRef, v.Target.SourceCommitHash, v.Repair}).To(Equal([]any{ref, commit, repair}))
		},
		Entry("are those of the proven release", main(withAbsence(eligibility.RepairDue)), eligibility.Eligible, "main",
			commit1, true),
		Entry("also where a tag was moved", main(tag, tip(commit2), withAbsence(eligibility.RepairDue)),
			eligibility.Eligible, "main", commit1, true),
		Entry("are the new ones of a branch that has moved: an upgrade brings it back, too",
			main(tip(commit2), withAbsence(eligibility.RepairDue)), eligibility.Eligible, "main", commit2, false),
		Entry("are those of the proven release if what the branch moved to has failed here",
			main(tip(commit2), refused(commit2, deploy1), withAbsence(eligibility.RepairDue)), eligibility.Eligible, "main",
			commit1, true),
		Entry("are those of the recorded version if another ref is wanted, and has failed here",
			main(withRecorded("old"), tip(commit2), refused("", ""), withAbsence(eligibility.RepairDue)),
			eligibility.Eligible, "old", commit1, true),
		Entry("are those of another ref that is wanted", main(withRecorded("old"), withAbsence(eligibility.RepairDue)),
			eligibility.Eligible, "main", commit1, false),
	)

	It("are refused with the ref if no quarantine binds commits, also for a repair", func() {
		Expect(eligibility.Judge(main(withRunning("v0"), refused("", ""))).Reason).To(Equal(eligibility.Quarantined))
	})
})

var _ = Describe("Strays", func() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	recorded := upgrade.Version{SourceRepo: "src", SourceRepoGitRef: "v1", SourceCommitHash: "c1"}
	to := func(v upgrade.Version, s upgrade.State, reason string, minute int) eligibility.Attempt {
		return eligibility.Attempt{To: v, State: s, Reason: reason, Ended: noon.Add(time.Duration(minute) * time.Minute)}
	}
	elsewhere := upgrade.Version{SourceRepo: "fork", SourceRepoGitRef: "v1"}
	other := upgrade.Version{SourceRepo: "src", SourceRepoGitRef: "v2"}

	DescribeTable("are looked for since the last upgrade that shows them",
		func(want int, attempts ...eligibility.Attempt) {
			at := eligibility.Tried(recorded, attempts)
			if want == 0 {
				Expect(at).To(BeZero())
				return
			}
			Expect(at).To(Equal(noon.Add(time.Duration(want) * time.Minute)))
		},
		Entry("none, if there was no upgrade", 0),
		Entry("one that was completed", 5, to(recorded, upgrade.Completed, "", 5)),
		Entry("the last one of several", 5, to(recorded, upgrade.Completed, "", 5), to(recorded, upgrade.Completed, "", 3)),
		Entry("one that did not prove itself: a repair that did not help would not help the next time", 7,
			to(recorded, upgrade.Completed, "", 5), to(recorded, upgrade.RolledBack, "not_proven", 7)),
		Entry("one to another commit of the recorded ref", 5, to(recorded.AtRef(), upgrade.Completed, "", 5)),
		Entry("none that failed before it was deployed", 0, to(recorded, upgrade.Failed, "git_unreachable", 5)),
		Entry("none to another version", 0, to(other, upgrade.Completed, "", 5)),
		Entry("none to another repository", 0, to(elsewhere, upgrade.Completed, "", 5)),
	)

	DescribeTable("have stayed as they are",
		func(want bool, change func(*module.Module)) {
			m := module.Module{Status: module.Active, LastSeen: noon, SteadySince: noon.Add(-time.Hour)}
			change(&m)
			Expect(eligibility.Stayed(m, noon, noon, time.Minute)).To(Equal(want))
		},
		Entry("since before", true, func(*module.Module) {}),
		Entry("not one that came at that instant", false, func(m *module.Module) { m.SteadySince = noon }),
		Entry("not one that is silent", false, func(m *module.Module) { m.LastSeen = noon.Add(-2 * time.Minute) }),
		Entry("not one that is inactive", false, func(m *module.Module) { m.Status = module.Inactive }),
	)
	It("cannot be told without such an upgrade", func() {
		m := module.Module{Status: module.Active, LastSeen: noon}
		Expect(eligibility.Stayed(m, time.Time{}, noon, time.Minute)).To(BeFalse())
	})
})
