// Package memory is a cluster in memory: a complete runtime without processes. It serves the specs that kill the engine
// after every step.
package memory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Cluster is one cluster. Use New.
type Cluster struct {
	// Health decides how an instance fares once a definition was applied; nil means healthy at once.
	Health func(d messages.UnitDefinition) roll.Health
	// Hosts is the number of machines.
	Hosts int
	// Metadata are what every machine offers. While the cluster is used, Offer changes them.
	Metadata map[string]string
	// Log is what every instance has written.
	Log string

	mu      sync.Mutex
	units   map[string]*member
	changed chan struct{}
	version int            // of what List shows
	listed  map[string]int // the version that was listed last, by base
	starts  []string
}

type member struct {
	definition messages.UnitDefinition
	token      int64
	spell      int
	gone       bool // removed; its token is remembered
}

// New returns an empty cluster of one machine.
func New() *Cluster {
	return &Cluster{Hosts: 1, units: map[string]*member{}, changed: make(chan struct{}), listed: map[string]int{}}
}

var _ runtime.Runtime = (*Cluster)(nil)

// Machines implements runtime.Runtime. Machine m1 has the host name box1, and so on.
func (c *Cluster) Machines(ctx context.Context) ([]runtime.Machine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []runtime.Machine
	for i := range c.Hosts {
		all = append(all, runtime.Machine{ID: fmt.Sprintf("m%d", i+1), Host: fmt.Sprintf("box%d", i+1),
			Metadata: c.Metadata})
	}
	return all, ctx.Err()
}

// Unplaced implements runtime.Runtime. Instances of other deploys take no place.
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
	return unit.Unplaced(machines, nil, candidates), err
}

// machine places an instance: the instance with the number n runs on the n-th machine, and begins anew after the last.
// An instance that demands what the machines do not offer has no machine. c.mu is held.
func (c *Cluster) machine(name unit.Name, d messages.UnitDefinition) []string {
	n, err := strconv.Atoi(name.Instance)
	if err != nil || n < 1 {
		n = 1
	}
	id := fmt.Sprintf("m%d", (n-1)%max(c.Hosts, 1)+1)
	if unit.NewPlaceable(name, runtime.Options(d)).Misses(unit.Machine{ID: id, Metadata: c.Metadata}) != "" {
		return nil
	}
	return []string{id}
}

// Offer changes what every machine offers. What does not fit any more has no machine until the offer fits again.
func (c *Cluster) Offer(metadata map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Metadata = metadata
	c.announce()
}

// List implements runtime.Runtime.
func (c *Cluster) List(ctx context.Context, bases []string) ([]runtime.Instance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, base := range bases {
		c.listed[base] = c.version
	}
	var all []runtime.Instance
	for name, m := range c.units {
		parsed, err := unit.ParseName(name)
		if err != nil || m.gone || !slices.Contains(bases, parsed.Base) {
			continue
		}
		i := runtime.Instance{Definition: m.definition, Machines: c.machine(parsed, m.definition), Sighting: roll.Sighting{
			Name: name, Hash: Hash(m.definition), Health: roll.Starting, Spell: fmt.Sprint(m.spell)}}
		if len(i.Machines) > 0 {
			i.Sighting.Health = c.health(m.definition)
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b runtime.Instance) int { return strings.Compare(a.Sighting.Name, b.Sighting.Name) })
	return all, ctx.Err()
}

func (c *Cluster) health(d messages.UnitDefinition) roll.Health {
	if c.Health == nil {
		return roll.Healthy
	}
	return c.Health(d)
}

// Apply implements runtime.Runtime.
func (c *Cluster) Apply(ctx context.Context, d messages.UnitDefinition, token int64, restart bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.units[d.Name]
	switch {
	case !ok:
		m = &member{gone: true}
		c.units[d.Name] = m
	case token < m.token:
		return runtime.Superseded(d.Name, token, m.token)
	}
	m.token = token
	if !m.gone && Hash(m.definition) == Hash(d) && !restart {
		return nil
	}
	m.definition, m.gone = d, false
	m.spell++
	c.starts = append(c.starts, d.Name+" "+Hash(d)[:6])
	c.announce()
	return nil
}

// Fence implements runtime.Runtime.
func (c *Cluster) Fence(ctx context.Context, name string, token int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.units[name]
	switch {
	case !ok || m.gone:
		return ctx.Err()
	case token < m.token:
		return runtime.Superseded(name, token, m.token)
	}
	m.token = token
	return ctx.Err()
}

// Remove implements runtime.Runtime.
func (c *Cluster) Remove(ctx context.Context, name string, token int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.units[name]
	if !ok || m.gone {
		return nil
	}
	if token < m.token {
		return runtime.Superseded(name, token, m.token)
	}
	m.token, m.gone = token, true
	c.announce()
	return nil
}

// Wait implements runtime.Runtime.
func (c *Cluster) Wait(ctx context.Context, name string) error {
	parsed, err := unit.ParseName(name)
	if err != nil {
		return fmt.Errorf("%w: %w", runtime.ErrRefused, err)
	}
	c.mu.Lock()
	changed, missed := c.changed, c.listed[parsed.Base] != c.version
	c.mu.Unlock()
	if missed {
		return nil
	}
	select {
	case <-changed:
	case <-ctx.Done():
	}
	return nil
}

// Logs implements runtime.Runtime.
func (c *Cluster) Logs(context.Context, string) (string, error) { return c.Log, nil }

// Crash restarts an instance, as a process that dies and comes back.
func (c *Cluster) Crash(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.units[name].spell++
	c.announce()
}

// Starts lists every start so far, as "<name> <first six digits of the definition's hash>".
func (c *Cluster) Starts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.starts)
}

// announce wakes who waits; c.mu is held.
func (c *Cluster) announce() {
	c.version++
	close(c.changed)
	c.changed = make(chan struct{})
}

// Hash is the identity of a definition, without its token.
func Hash(d messages.UnitDefinition) string { return unit.Hash(runtime.Options(d)) }
