package chaos

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

// kind is a kind of moment: half of the kills wait a little for one, as some are too short to be met by chance.
type kind string

const (
	anyMoment kind = "any"
	config    kind = "config"
	between   kind = "stop to start of an instance"
	verifying kind = "verifying"
	phase1    kind = "deployer phase 1"
	phase2    kind = "deployer phase 2"
)

// counted are the kinds that a trial should meet. A kill may fall into two of them.
var counted = []kind{config, between, verifying, phase1, phase2}

var kinds = []kind{anyMoment, config, anyMoment, between, anyMoment, verifying}

// patience is how long a kill waits for its kind of moment.
const patience = 2500 * time.Millisecond

// moment is what went on when a kill fell.
type moment struct {
	done    bool
	holder  string // hostname that works on the order
	upgrade string // "overseer verifying", "deployer in_progress phase 2", "" between upgrades
	order   string // "config of deployer-1", "deploy_oa unclaimed", "" without one
	between bool   // an instance of what is being deployed is between its stop and its start
}

// is tells whether the moment is of a kind.
func (m moment) is(k kind) bool {
	switch k {
	case config:
		return strings.HasPrefix(m.order, "config by")
	case between:
		return m.between
	case verifying:
		return strings.Contains(m.upgrade, "verifying")
	case phase1:
		return strings.HasPrefix(m.upgrade, "deployer") && strings.HasSuffix(m.upgrade, "phase 1")
	case phase2:
		return strings.HasPrefix(m.upgrade, "deployer") && strings.HasSuffix(m.upgrade, "phase 2")
	case anyMoment:
		return true
	default:
		return false
	}
}

// await returns the first moment of a kind, or the current one when patience ends or nothing is left to upgrade.
func (r *run) await(ctx context.Context, k kind) (moment, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for began := time.Now(); ; {
		m, err := r.look(ctx)
		if err != nil || m.done || m.is(k) || time.Since(began) > patience {
			return m, err
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// look reads the database itself: manager-api may just be dead.
func (r *run) look(ctx context.Context) (moment, error) {
	var m moment
	if err := r.db.GetContext(ctx, &m.done, `SELECT count(*) = $1 FROM system_components WHERE source_repo_git_ref = $2`, len(types), r.ref); err != nil {
		return m, fmt.Errorf("look at the components: %w", err)
	}
	var running []struct {
		Type  string `db:"component_type"`
		State string `db:"state"`
		Phase int    `db:"phase"`
	}
	if err := r.db.SelectContext(ctx, &running, `SELECT component_type, state, phase FROM upgrades WHERE state IN ('in_progress', 'verifying', 'rolling_back')`); err != nil {
		return m, fmt.Errorf("look at the upgrades: %w", err)
	}
	for _, u := range running {
		m.upgrade = fmt.Sprintf("%s %s phase %d", u.Type, u.State, u.Phase)
	}
	var orders []order
	if err := r.db.SelectContext(ctx, &orders, `SELECT o.milestone, w.component_type, w.phase, coalesce(l.holder, '') AS holder
		FROM orders o JOIN workflows w ON w.id = o.workflow_id LEFT JOIN leases l ON l.name = 'order/' || o.id
		WHERE o.state IN ('open', 'claimed') ORDER BY o.created_at`); err != nil {
		return m, fmt.Errorf("look at the orders: %w", err)
	}
	states, err := r.stack.UnitStates(ctx)
	if err == nil { // unitd may be dead too
		r.forgetActive(states)
	}
	for _, o := range orders {
		who := "unclaimed"
		if o.Holder != "" {
			m.holder = o.Holder
			who = "by " + o.Holder[strings.LastIndexByte(o.Holder, '.')+1:]
		}
		m.order = string(o.Milestone) + " " + who
		m.between = m.between || err == nil && o.stopped(states, r.struck)
	}
	return m, nil
}

// order is one that is open.
type order struct {
	Milestone messages.Milestone `db:"milestone"`
	Type      component.Type     `db:"component_type"`
	Phase     int                `db:"phase"`
	Holder    string             `db:"holder"`
}

// stopped tells whether an instance of the service that the order deploys does not run, for another reason than that it
// was struck.
func (o order) stopped(states map[string]string, struck map[string]bool) bool {
	if o.Milestone != messages.MilestoneDeploy && o.Milestone != messages.MilestoneDeployOA {
		return false
	}
	for _, v := range stack.Own {
		for i := 1; i <= v.Instances; i++ {
			if v.Type == o.Type && v.Phase == o.Phase && states[v.Unit(i)] != "active" && !struck[v.Unit(i)] {
				return true
			}
		}
	}
	return false
}

// forgetActive forgets that units were struck which have come back since.
func (r *run) forgetActive(states map[string]string) {
	maps.DeleteFunc(r.struck, func(unit string, _ bool) bool { return states[unit] == "active" })
}

// unitOf is the unit of an instance that calls itself <host>.<service>-<number>.
func unitOf(hostname string) string {
	instance := hostname[strings.LastIndexByte(hostname, '.')+1:]
	at := strings.LastIndexByte(instance, '-')
	return instance[:max(at, 0)] + "@" + instance[at+1:] + ".service"
}

// note writes one line of the timeline and counts what kind of moment it was.
func (r *run) note(n int, victim string, m moment) {
	what := m.upgrade
	if what == "" {
		what = "between upgrades"
	}
	if m.order != "" {
		what += ", " + m.order
	}
	if m.between {
		what += ", an instance is stopped"
	}
	fmt.Fprintf(r.out, "%7.1fs  kill %2d  %-26s %s\n", time.Since(r.began).Seconds(), n, victim[strings.LastIndexByte(victim, '.')+1:], what)
	for _, k := range counted {
		if m.is(k) {
			r.seen[k]++
		}
	}
}
