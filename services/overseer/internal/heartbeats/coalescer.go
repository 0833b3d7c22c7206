// Package heartbeats brings the beats of an exchange's modules into manager-api: decoded cheaply, coalesced per boot,
// written in batches, one request at a time while the next batch gathers at the broker's consumer.
//
// Invariants: a beat is acknowledged after its batch was committed, and only then counts as heard; what cannot be
// decoded is rejected alone; a batch needs no term, because it can only revive.
package heartbeats

import (
	"github.com/openaperture/openaperture/pkg/module"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// maxPerHostname bounds the beats of one hostname in a batch. More than two boots in a batch are a crash loop; beats
// that alternate are of two hosts with one name.
const maxPerHostname = 8

// Coalescer makes as few beats as possible of those that it takes in, so that manager-api ends up knowing the same
// (pkg/module, Merge): of beats of one boot that follow each other the newest is kept, with the version fields that it
// leaves out as before. Beats of different boots are all kept, in their order: the order says which boot was there
// first, and whether a boot goes on although another one has come.
type Coalescer struct {
	index map[string][]int // by hostname, the positions of its beats
	beats []messages.ModuleStatus
}

// NewCoalescer expects about so many beats.
func NewCoalescer(size int) *Coalescer {
	return &Coalescer{index: make(map[string][]int, size), beats: make([]messages.ModuleStatus, 0, size)}
}

// Add takes a beat in.
func (c *Coalescer) Add(m messages.ModuleStatus) {
	own := c.index[m.Hostname]
	if n := len(own); n > 0 {
		last := &c.beats[own[n-1]]
		if last.BootID == m.BootID {
			if beatOf(m).After(last.Seq) {
				*last = inherit(m, *last)
			}
			return
		}
		if n == maxPerHostname { // the oldest one says the least
			for i := 1; i < n; i++ {
				c.beats[own[i-1]] = c.beats[own[i]]
			}
			c.beats[own[n-1]] = m
			return
		}
	}
	c.index[m.Hostname] = append(own, len(c.beats))
	c.beats = append(c.beats, m)
}

// Beats returns what was kept, each hostname's beats in their order.
func (c *Coalescer) Beats() []messages.ModuleStatus { return c.beats }

// beatOf is what decides in a heartbeat.
func beatOf(m messages.ModuleStatus) module.Beat {
	b := module.Beat{BootID: m.BootID, Seq: m.Seq, Status: m.Status, SourceRepo: m.SourceRepo,
		SourceRepoGitRef: m.SourceRepoGitRef, DeploymentRepo: m.DeploymentRepo, DeploymentRepoGitRef: m.DeploymentRepoGitRef}
	if m.StartedAt != nil {
		b.StartedAt = *m.StartedAt
	}
	return b
}

// inherit fills what a beat leaves out from an earlier one of its boot.
func inherit(m, earlier messages.ModuleStatus) messages.ModuleStatus {
	b := beatOf(m).Inherit(beatOf(earlier))
	m.SourceRepo, m.SourceRepoGitRef = b.SourceRepo, b.SourceRepoGitRef
	m.DeploymentRepo, m.DeploymentRepoGitRef = b.DeploymentRepo, b.DeploymentRepoGitRef
	if m.StartedAt == nil && !b.StartedAt.IsZero() {
		m.StartedAt = new(b.StartedAt)
	}
	return m
}
