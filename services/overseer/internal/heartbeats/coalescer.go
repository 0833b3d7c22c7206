// Package heartbeats brings the beats of an exchange's modules into manager-api: decoded cheaply, coalesced to the latest
// per hostname, written in batches, one request at a time while the next batch gathers at the broker's consumer.
//
// Invariants: a beat is acknowledged after its batch was committed, and only then counts as heard; what cannot be decoded
// is rejected alone; a batch needs no term, because it can only revive.
package heartbeats

import (
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Coalescer keeps the latest beat of each hostname, in the order in which the hostnames were first heard.
type Coalescer struct {
	index map[string]int
	beats []messages.ModuleStatus
}

// NewCoalescer expects about so many beats.
func NewCoalescer(size int) *Coalescer {
	return &Coalescer{index: make(map[string]int, size), beats: make([]messages.ModuleStatus, 0, size)}
}

// Add takes a beat in. Within one boot the higher number wins, and of two boots the one that was started later, whatever
// the order of arrival; otherwise the later one.
func (c *Coalescer) Add(m messages.ModuleStatus) {
	i, known := c.index[m.Hostname]
	if !known {
		c.index[m.Hostname] = len(c.beats)
		c.beats = append(c.beats, m)
		return
	}
	last := c.beats[i]
	if older(m, last) {
		c.beats[i] = keepVersion(last, m)
		return
	}
	c.beats[i] = keepVersion(m, last)
}

// older: m was sent before last, though it arrived after it.
func older(m, last messages.ModuleStatus) bool {
	if m.BootID != last.BootID {
		return m.StartedAt != nil && last.StartedAt != nil && m.StartedAt.Before(*last.StartedAt)
	}
	return m.BootID != "" && m.Seq < last.Seq
}

// keepVersion fills version fields that the newer beat leaves out: to leave out means "as before", and the older beat is
// what came before.
func keepVersion(newer, older messages.ModuleStatus) messages.ModuleStatus {
	if newer.SourceRepo == "" && newer.SourceRepoGitRef == "" {
		newer.SourceRepo, newer.SourceRepoGitRef = older.SourceRepo, older.SourceRepoGitRef
	}
	if newer.DeploymentRepo == "" && newer.DeploymentRepoGitRef == "" {
		newer.DeploymentRepo, newer.DeploymentRepoGitRef = older.DeploymentRepo, older.DeploymentRepoGitRef
	}
	return newer
}

// Beats returns what was kept.
func (c *Coalescer) Beats() []messages.ModuleStatus { return c.beats }
