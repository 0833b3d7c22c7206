package managerapi

import (
	"slices"

	"github.com/openaperture/openaperture/pkg/component"
)

// Changed names the first thing that a judgement rests on and that is not so any more, "" if nothing has changed. Only
// what decides eligibility is compared: a component's status, next check and last verdict change without a judgement
// being wrong.
func (s Saw) Changed(now Saw) string {
	switch {
	case s.Trigger != now.Trigger:
		return "the trigger of the request"
	case s.Force != now.Force:
		return "force of the request"
	case (s.Ref == nil) != (now.Ref == nil):
		return "whether the type has a ref"
	case s.Ref != nil && !s.Ref.Equal(*now.Ref):
		return "the ref"
	case s.Component.ExchangeID != now.Component.ExchangeID || s.Component.Type != now.Component.Type:
		return "the exchange or the type of the component"
	case s.Component.Strategy != now.Component.Strategy:
		return "the component's upgrade_strategy"
	case s.Component.FollowDeployment != now.Component.FollowDeployment:
		return "the component's follow_deployment"
	case deployment(s.Component) != deployment(now.Component):
		return "the component's deployment repository"
	case recorded(s.Component) != recorded(now.Component):
		return "the component's recorded version"
	case !slices.Equal(s.Quarantines, now.Quarantines):
		return "the quarantines of the type"
	}
	return ""
}

func deployment(c component.Component) [2]string {
	return [2]string{c.DeploymentRepo, c.DeploymentRepoGitRef}
}

func recorded(c component.Component) [2]string { return [2]string{c.SourceRepo, c.SourceRepoGitRef} }
