package soak

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// kind is a kind of moment: half of the faults wait a little for one, as some are too short to be met by chance.
type kind string

const (
	anyMoment kind = "any"
	config    kind = "config"
	between   kind = "stop to start of an instance"
	deploying kind = "deploying"
	verifying kind = "verifying"
	returning kind = "rolling back"
	phase1    kind = "deployer phase 1"
	phase2    kind = "deployer phase 2"
	idle      kind = "between upgrades"
)

// counted are the kinds that a trial should meet. A fault may fall into two of them.
var counted = []kind{idle, config, between, deploying, verifying, returning, phase1, phase2}

var kinds = []kind{anyMoment, config, anyMoment, between, anyMoment, verifying}

// patience is how long a fault waits for its kind of moment.
const patience = 2500 * time.Millisecond

// moment is what goes on.
type moment struct {
	print   string // differs from another moment's if a state has changed between them
	holder  string // hostname that works on the order
	upgrade string // "overseer verifying phase 1", "" between upgrades
	order   string // "config by deployer-1", "deploy_oa unclaimed", "" without one
	between bool   // an instance of what is being deployed is between its stop and its start
}

// is tells whether the moment is of a kind.
func (m moment) is(k kind) bool {
	switch k {
	case config:
		return strings.HasPrefix(m.order, "config by")
	case between:
		return m.between
	case deploying:
		return strings.Contains(m.upgrade, "in_progress")
	case verifying:
		return strings.Contains(m.upgrade, "verifying")
	case returning:
		return strings.Contains(m.upgrade, "rolling_back")
	case phase1:
		return strings.HasPrefix(m.upgrade, "deployer") && strings.HasSuffix(m.upgrade, "phase 1")
	case phase2:
		return strings.HasPrefix(m.upgrade, "deployer") && strings.HasSuffix(m.upgrade, "phase 2")
	case idle:
		return m.upgrade == ""
	case anyMoment:
		return true
	default:
		return false
	}
}

// String is the moment in the timeline.
func (m moment) String() string {
	what := m.upgrade
	if what == "" {
		what = string(idle)
	}
	if m.order != "" {
		what += ", " + m.order
	}
	if m.between {
		what += ", an instance is stopped"
	}
	return what
}

// look reads the database itself, and little of it: manager-api may just be dead, and states change often.
func (r *run) look(ctx context.Context) (moment, error) {
	var m moment
	var states []string
	if err := r.db.SelectContext(ctx, &states, `SELECT id || ' ' || state || ' ' || phase || ' ' || step FROM upgrades
		ORDER BY id DESC LIMIT 12`); err != nil {
		return m, fmt.Errorf("look at the upgrades: %w", err)
	}
	var running []struct {
		Type  string `db:"component_type"`
		State string `db:"state"`
		Phase int    `db:"phase"`
	}
	if err := r.db.SelectContext(ctx, &running, `SELECT component_type, state, phase FROM upgrades
		WHERE state IN ('in_progress', 'verifying', 'rolling_back')`); err != nil {
		return m, fmt.Errorf("look at the upgrades: %w", err)
	}
	for _, u := range running {
		m.upgrade = fmt.Sprintf("%s %s phase %d", u.Type, u.State, u.Phase)
	}
	var orders []deployment
	if err := r.db.SelectContext(ctx, &orders,
		`SELECT o.milestone, w.component_type, w.phase, coalesce(l.holder, '') AS holder
		FROM orders o JOIN workflows w ON w.id = o.workflow_id LEFT JOIN leases l ON l.name = 'order/' || o.id
		WHERE o.state IN ('open', 'claimed') ORDER BY o.created_at`); err != nil {
		return m, fmt.Errorf("look at the orders: %w", err)
	}
	units := r.observer.units(ctx)
	r.forgetActive(units)
	for _, o := range orders {
		who := "unclaimed"
		if o.Holder != "" {
			m.holder = o.Holder
			who = "by " + o.Holder[strings.LastIndexByte(o.Holder, '.')+1:]
		}
		m.order = string(o.Milestone) + " " + who
		m.between = m.between || units != nil && o.stopped(units, r.struck)
	}
	m.print = fmt.Sprint(states, m.order)
	return m, nil
}

// deployment is an order that is open, with what it deploys.
type deployment struct {
	Milestone messages.Milestone `db:"milestone"`
	Type      component.Type     `db:"component_type"`
	Phase     int                `db:"phase"`
	Holder    string             `db:"holder"`
}

// stopped tells whether an instance of the service that the order deploys does not run, for another reason than that it
// was struck.
func (o deployment) stopped(states map[string]string, struck map[string]time.Time) bool {
	if o.Milestone != messages.MilestoneDeploy && o.Milestone != messages.MilestoneDeployOA {
		return false
	}
	for _, v := range stack.Own {
		for i := 1; i <= v.Instances; i++ {
			_, hit := struck[v.Unit(i)]
			if v.Type == o.Type && v.Phase == o.Phase && states[v.Unit(i)] != "active" && !hit {
				return true
			}
		}
	}
	return false
}

// forgetActive forgets that units were struck which have come back since, and were left alone for a while.
func (r *run) forgetActive(states map[string]string) {
	maps.DeleteFunc(r.struck, func(unit string, at time.Time) bool {
		return states[unit] == "active" && time.Since(at) > time.Second
	})
}

// unitOf is the unit of an instance that calls itself <host>.<service>-<number>.
func unitOf(hostname string) string {
	instance := hostname[strings.LastIndexByte(hostname, '.')+1:]
	at := strings.LastIndexByte(instance, '-')
	return instance[:max(at, 0)] + "@" + instance[at+1:] + ".service"
}
