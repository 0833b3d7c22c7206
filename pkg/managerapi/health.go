package managerapi

import (
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/eligibility"
	"github.com/openaperture/openaperture/pkg/health"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Health is what the snapshot says about the health of its exchange.
func (s Snapshot) Health() health.Input {
	in := health.Input{Refs: s.Refs, Components: s.Components, Counts: s.Counts, Modules: s.Modules, Now: s.DatabaseTime,
		LiveWithin: time.Duration(s.LiveWithinMS) * time.Millisecond,
		Open:       map[component.ID]upgrade.State{}, Quarantined: map[component.Type][]upgrade.Version{},
		Source: map[component.ID]component.Tip{}, Deployment: map[component.ID]component.Tip{},
		Absence: map[component.ID]eligibility.Absence{}}
	for _, u := range s.Upgrades {
		in.Open[u.ComponentID] = u.State
	}
	for _, c := range s.Components {
		in.Quarantined[c.Type] = s.Refused(c.Type)
		in.Absence[c.ID] = s.Absence(c)
		in.Source[c.ID], in.Deployment[c.ID] = s.Tips(c, time.Time{})
	}
	return in
}
