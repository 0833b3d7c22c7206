package fleet

import (
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // Fleet's identity of a unit, no security
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	waitAtOnce  = 20 * time.Second // of one waiting request to unitd
	pollEvery   = time.Second      // between two looks at a real fleet, whose states lag by seconds anyway
	stopTimeout = 60 * time.Second // of an instance that is stopped to be started again
	logLines    = 30
)

// Cluster is one cluster behind a Fleet API. Use New. It is safe for concurrent use.
type Cluster struct {
	*client
	mu      sync.Mutex
	indexes map[string]string // unit name → unitd's index of the last state that was seen
}

var _ runtime.Runtime = (*Cluster)(nil)

// New returns the cluster at an endpoint: http://host:port, https://host or unix:/path. bearer may be "".
func New(endpoint, bearer string) (*Cluster, error) {
	c, err := newClient(endpoint, bearer)
	if err != nil {
		return nil, err
	}
	return &Cluster{client: c, indexes: map[string]string{}}, nil
}

// Close ends idle connections.
func (c *Cluster) Close() { c.http.CloseIdleConnections() }

// Machines implements runtime.Runtime.
func (c *Cluster) Machines(ctx context.Context) ([]runtime.Machine, error) {
	var all []runtime.Machine
	return all, c.pages(ctx, "/fleet/v1/machines", func(p page) {
		for _, m := range p.Machines {
			all = append(all, runtime.Machine{ID: m.ID, Host: hostOf(m.Metadata), Metadata: m.Metadata})
		}
	})
}

// hostOf is the host name of a machine. unitd tells it in its metadata. In those of a real fleet stands whatever the
// host's owner has written there, so they are not believed.
func hostOf(metadata map[string]string) string {
	if metadata["unitd_version"] == "" {
		return ""
	}
	return metadata["hostname"]
}

// Unplaced implements runtime.Runtime. A unit of the cluster that has no machine, or is not to be loaded, takes no
// place.
func (c *Cluster) Unplaced(ctx context.Context, wanted []messages.UnitDefinition) (string, error) {
	shown, err := c.Machines(ctx)
	if err != nil {
		return "", err
	}
	machines := make([]unit.Machine, len(shown))
	for i, m := range shown {
		machines[i] = unit.Machine{ID: m.ID, Metadata: m.Metadata}
	}
	candidates, err := runtime.Placeables(wanted)
	if err != nil {
		return "", err
	}
	var tenants []unit.Tenant
	err = c.pages(ctx, "/fleet/v1/units", func(p page) {
		for _, u := range p.Units {
			same := func(w unit.Placeable) bool { return w.Name == u.Name }
			if u.DesiredState != inactive && !slices.ContainsFunc(candidates, same) {
				tenants = append(tenants, tenant(u, machines)...)
			}
		}
	})
	return unit.Unplaced(machines, tenants, candidates), err
}

// tenant is a unit at its place. A global unit runs on every machine that it fits.
func tenant(u fleetUnit, machines []unit.Machine) []unit.Tenant {
	name, err := unit.ParseName(u.Name)
	if err != nil {
		return nil
	}
	t := unit.Tenant{Placeable: unit.NewPlaceable(name, u.Options)}
	switch {
	case unit.IsGlobal(u.Options):
		for _, m := range machines {
			if t.Misses(m) == "" {
				t.Machines = append(t.Machines, m.ID)
			}
		}
	case u.MachineID != "":
		t.Machines = []string{u.MachineID}
	}
	return []unit.Tenant{t}
}

// List implements runtime.Runtime.
func (c *Cluster) List(ctx context.Context, bases []string) ([]runtime.Instance, error) {
	var units []fleetUnit
	states := map[string][]fleetState{}
	both, inner := errgroup.WithContext(ctx)
	read := func(path string, each func(page)) {
		both.Go(func() error {
			return loop.Contain(inner, "fleet", path, func() error { return c.pages(inner, path, each) })
		})
	}
	read("/fleet/v1/units", func(p page) { units = append(units, p.Units...) })
	read("/fleet/v1/state", func(p page) {
		for _, s := range p.States {
			states[s.Name] = append(states[s.Name], s)
		}
	})
	if err := both.Wait(); err != nil {
		return nil, err
	}
	var all []runtime.Instance
	for _, u := range units {
		name, err := unit.ParseName(u.Name)
		if err == nil && name.Type == "service" && !name.IsTemplate() && slices.Contains(bases, name.Base) {
			all = append(all, instance(u, states[u.Name]))
		}
	}
	slices.SortFunc(all, func(a, b runtime.Instance) int { return cmp.Compare(a.Sighting.Name, b.Sighting.Name) })
	return all, nil
}

// instance joins a unit and its state. The state's hash says which definition it is about: a real fleet hashes the
// token too, unitd does not.
func instance(u fleetUnit, states []fleetState) runtime.Instance {
	hash := unit.Hash(u.Options)
	out := runtime.Instance{Definition: definition(u),
		Sighting: roll.Sighting{Name: u.Name, Hash: hash, Health: roll.Down}}
	if u.DesiredState != launched {
		return out
	}
	out.Sighting.Health = roll.Starting // until its state is shown
	if unit.IsGlobal(u.Options) && len(states) > 0 {
		out.Sighting = everywhere(u, states, hash)
		for _, s := range states {
			out.Machines = append(out.Machines, s.MachineID)
		}
		slices.Sort(out.Machines)
		return out
	}
	// A state of another machine is of an earlier placement; a unit without machine is not placed.
	if i := slices.IndexFunc(states,
		func(s fleetState) bool { return u.MachineID != "" && s.MachineID == u.MachineID }); i >= 0 {
		out.Sighting, out.Machines = sighting(u, states[i], hash), []string{u.MachineID}
	}
	return out
}

// sighting is what one state says about a unit that is to run.
func sighting(u fleetUnit, s fleetState, hash string) roll.Sighting {
	if s.Hash != hash && s.Hash != rawHash(u.Options) {
		hash = s.Hash // what runs still is another definition
	}
	return roll.Sighting{Name: u.Name, Hash: hash, Health: health(s.Active),
		Spell: fmt.Sprintf("%s %s %d", s.MachineID, s.Since, s.Restarts)}
}

// everywhere joins what the machines of a global unit show: as unhealthy as the worst of them, another definition if
// one runs another, and a new spell with every machine's.
func everywhere(u fleetUnit, states []fleetState, hash string) roll.Sighting {
	joined := roll.Sighting{Name: u.Name, Hash: hash, Health: roll.Healthy}
	var spells []string
	for _, s := range states {
		one := sighting(u, s, hash)
		if one.Hash != hash {
			joined.Hash = one.Hash
		}
		joined.Health = min(joined.Health, one.Health)
		spells = append(spells, one.Spell)
	}
	slices.Sort(spells) // the cluster gives no order
	joined.Spell = strings.Join(spells, ", ")
	return joined
}

func definition(u fleetUnit) messages.UnitDefinition {
	d := messages.UnitDefinition{Name: u.Name, Options: make([]messages.Option, 0, len(u.Options))}
	for _, o := range unit.WithoutToken(u.Options) {
		d.Options = append(d.Options, messages.Option(o))
	}
	return d
}

func rawHash(options []unit.Option) string {
	sum := sha1.Sum([]byte(unit.Render(options))) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

func health(active string) roll.Health {
	switch active {
	case "active", "reloading":
		return roll.Healthy
	case "failed", "inactive":
		return roll.Down
	default:
		return roll.Starting
	}
}

// Apply implements runtime.Runtime. A definition that must not be sent is ErrRefused.
func (c *Cluster) Apply(ctx context.Context, d messages.UnitDefinition, token int64, restart bool) error {
	options := runtime.Options(d)
	if err := unit.Validate(options); err != nil {
		return fmt.Errorf("%w: unit %s: %w", runtime.ErrRefused, d.Name, err)
	}
	current, exists, err := c.fenced(ctx, d.Name, token)
	if err != nil {
		return err
	}
	same := exists && unit.Equal(current.Options, options)
	switch {
	case same && restart:
		if err := c.stop(ctx, d.Name, token); err != nil {
			return err
		}
	case same && !current.ignoresToken:
		// To a real fleet another token is another definition: sent whole, it would restart what is to be left alone.
		return c.put(ctx, d.Name, token, map[string]any{"desiredState": launched})
	}
	return c.put(ctx, d.Name, token,
		map[string]any{"name": d.Name, "desiredState": launched, "options": unit.WithToken(options, token)})
}

// Fence implements runtime.Runtime. The target alone is sent, which changes nothing but the token that unitd remembers.
func (c *Cluster) Fence(ctx context.Context, name string, token int64) error {
	u, exists, err := c.fenced(ctx, name, token)
	if err != nil || !exists || u.DesiredState != launched {
		return err
	}
	return c.put(ctx, name, token, map[string]any{"desiredState": launched})
}

// fenced reads a unit and refuses a token that is lower than the one stored with it.
func (c *Cluster) fenced(ctx context.Context, name string, token int64) (fleetUnit, bool, error) {
	u, exists, err := c.unit(ctx, name)
	if held := unit.Token(u.Options); err == nil && exists && held > token {
		err = runtime.Superseded(name, token, held)
	}
	return u, exists, err
}

func (c *Cluster) put(ctx context.Context, name string, token int64, body any) error {
	got, err := c.call(ctx, callTimeout, http.MethodPut, unitPath(name), token, body)
	if err != nil {
		return err
	}
	if got.status != http.StatusCreated && got.status != http.StatusNoContent {
		return got.refusal(http.MethodPut, unitPath(name))
	}
	return nil
}

// stop makes a unit inactive and waits until it is, on every machine: a state that lags would pass for the new run's.
func (c *Cluster) stop(ctx context.Context, name string, token int64) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := c.put(ctx, name, token, map[string]any{"desiredState": inactive}); err != nil {
		return err
	}
	for {
		if stopped, err := c.stopped(ctx, name); err != nil || stopped {
			return err
		}
		if err := c.Wait(ctx, name); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return runtime.Unreachable(fmt.Errorf("unit %s does not stop", name))
		}
	}
}

// stopped tells whether no machine shows a unit running any more. A global unit has no current state of its own.
func (c *Cluster) stopped(ctx context.Context, name string) (bool, error) {
	u, exists, err := c.unit(ctx, name)
	if err != nil || !exists {
		return err == nil, err
	}
	if u.CurrentState != inactive && !unit.IsGlobal(u.Options) {
		return false, nil
	}
	runs := false
	err = c.pages(ctx, "/fleet/v1/state?unitName="+url.QueryEscape(name), func(p page) {
		runs = runs || slices.ContainsFunc(p.States,
			func(s fleetState) bool { return s.Name == name && health(s.Active) != roll.Down })
	})
	return !runs, err
}

// Remove implements runtime.Runtime. It returns when the cluster has accepted the removal; List shows when it is done.
func (c *Cluster) Remove(ctx context.Context, name string, token int64) error {
	if _, exists, err := c.fenced(ctx, name, token); err != nil || !exists {
		return err
	}
	got, err := c.call(ctx, callTimeout, http.MethodDelete, unitPath(name), token, nil)
	if err != nil {
		return err
	}
	if got.status != http.StatusNoContent && got.status != http.StatusNotFound {
		return got.refusal(http.MethodDelete, unitPath(name))
	}
	return nil
}

// Wait implements runtime.Runtime: with unitd by one waiting request, with a real fleet by a pause.
func (c *Cluster) Wait(ctx context.Context, name string) error {
	path := "/fleet/v1/state?unitName=" + url.QueryEscape(name)
	index := c.index(name)
	if index != "" {
		path += "&index=" + url.QueryEscape(index) + "&wait=" + waitAtOnce.String()
	}
	got, err := c.call(ctx, waitAtOnce+callTimeout, http.MethodGet, path, 0, nil)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		return got.refusal(http.MethodGet, path)
	}
	if next := got.header.Get(indexHeader); next != "" {
		c.mu.Lock()
		c.indexes[name] = next
		c.mu.Unlock()
		return nil
	}
	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

func (c *Cluster) index(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.indexes[name]
}

// Logs implements runtime.Runtime. A real fleet has none over HTTP: "".
func (c *Cluster) Logs(ctx context.Context, name string) (string, error) {
	path := fmt.Sprintf("/openaperture/v1/units/%s/logs?lines=%d", url.PathEscape(name), logLines)
	got, err := c.call(ctx, callTimeout, http.MethodGet, path, 0, nil)
	if err != nil || got.status != http.StatusOK {
		return "", err
	}
	return lastStart(string(got.body)), nil
}

// lastStart cuts away what earlier starts have written; without a mark among the lines all of them count.
func lastStart(log string) string {
	if i := strings.LastIndex("\n"+log, "\n"+unit.StartMark); i >= 0 {
		return log[i:]
	}
	return log
}
