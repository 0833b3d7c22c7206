package soak

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
)

// Fault is a kind of fault.
type Fault string

// The faults.
const (
	Kill     Fault = "kill"     // SIGKILL to a service or to unitd
	Pause    Fault = "pause"    // SIGSTOP, and SIGCONT some seconds later
	Cut      Fault = "cut"      // a link between an instance and a server is reset and refused for some seconds
	Stall    Fault = "stall"    // such a link is silent for some seconds
	Broker   Fault = "broker"   // RabbitMQ is restarted, or killed and started again
	Database Fault = "database" // PostgreSQL likewise
)

// Faults lists all kinds.
var Faults = []Fault{Kill, Pause, Cut, Stall, Broker, Database}

// Weights say how often each kind is drawn, against the others.
type Weights map[Fault]int

// KillsOnly are the weights of `make chaos`, Everything those of `make soak`.
var (
	KillsOnly  = Weights{Kill: 1}
	Everything = Weights{Kill: 26, Pause: 5, Cut: 4, Stall: 3, Broker: 1, Database: 2}
)

// plan draws everything that a run leaves to chance. Two plans of one seed draw the same, in the same order. What is
// drawn once for each upgrade has dice of its own, so that it does not depend on how many faults there were.
type plan struct {
	dice    *rand.Rand
	rare    *rand.Rand
	weights Weights
}

func newPlan(seed uint64, weights Weights) *plan {
	dice := func(stream uint64) *rand.Rand {
		return rand.New(rand.NewPCG(seed, stream)) //nolint:gosec // a seed that repeats is the point
	}
	return &plan{dice: dice(0x0a), rare: dice(0x0b), weights: weights}
}

// moment is the kind of moment that the next fault waits for.
func (p *plan) moment() kind { return kinds[p.dice.IntN(len(kinds))] }

// fault is the kind of the next fault. Where there is one kind only nothing is drawn.
func (p *plan) fault() Fault {
	sum := 0
	for _, f := range Faults {
		sum += p.weights[f]
	}
	if len(p.weights) > 1 {
		at := p.dice.IntN(sum)
		for _, f := range Faults {
			if at -= p.weights[f]; at < 0 {
				return f
			}
		}
	}
	return Kill
}

// victim draws one of the names. Every other time it is who works on the order, if somebody does and is among them.
func (p *plan) victim(names []string, holder string) string {
	victim := names[p.dice.IntN(len(names))]
	for _, name := range names {
		if name == holder && p.dice.IntN(2) == 0 {
			return holder
		}
	}
	return victim
}

// lasts is how long a fault lasts that ends by itself: from half a second to 8 seconds, which is more than the times of
// a lease and of a claim in the profile fast.
func (p *plan) lasts() time.Duration {
	return 500*time.Millisecond + time.Duration(p.dice.IntN(7500))*time.Millisecond
}

// abrupt says whether a server is killed before it is started again.
func (p *plan) abrupt() bool { return p.dice.IntN(2) == 0 }

// silent draws how many of n simulated modules are silent during the next upgrade, from the first.
func (p *plan) silent(n int) int { return p.rare.IntN(n/10 + 1) }

// Release is one release of the run.
type Release struct {
	Ref    string
	Broken *stack.Service // nil: it is good
	Mode   stack.Mode
}

func (r Release) String() string {
	if r.Broken == nil {
		return r.Ref + ", good"
	}
	return fmt.Sprintf("%s, in which %s is bad (%s)", r.Ref, r.Broken.Name, r.Mode)
}

// release is the n-th release after the first number. Every badEvery-th is bad; in which way is drawn.
func (p *plan) release(n, first, badEvery int) Release {
	r := Release{Ref: fmt.Sprintf("v%d", first+n)}
	if badEvery == 0 || n%badEvery != 0 {
		return r
	}
	ways := badWays()
	way := ways[p.rare.IntN(len(ways))]
	r.Broken, r.Mode = &way.service, way.mode
	return r
}

type badWay struct {
	service stack.Service
	mode    stack.Mode
}

// badWays are all ways in which a release can be bad.
func badWays() []badWay {
	ways := []badWay{{stack.Own[0], stack.Forgetful}}
	for _, v := range stack.Own {
		for _, mode := range stack.Modes {
			ways = append(ways, badWay{v, mode})
		}
	}
	return ways
}

// String names what is drawn, the most frequent first.
func (w Weights) String() string {
	sum := 0
	for _, n := range w {
		sum += n
	}
	var parts []string
	for _, f := range Faults {
		if w[f] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d%%", f, 100*w[f]/sum))
		}
	}
	return strings.Join(parts, ", ")
}
