package rabbit

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

var errUndeclared = errors.New("not declared yet")

// part is a piece of the topology that stands for itself: what the broker refuses of it ends neither the session nor
// the other parts.
type part struct {
	name     string
	topology Topology
	lacks    error // errUndeclared, then the broker's refusal, or nil once it is declared; guarded by Broker.mu
	doubtful bool  // to be declared again: a message came back; guarded by Broker.mu
}

// SetParts has more declared beside the topology, by name: parts that share a broker and nothing else. One that the
// broker refuses is left out and tried again every RefusedRetry, while all others are served; its queues are not
// consumed meanwhile, as they may be somebody else's. Parts never gate Ready: ask for them with Declared and
// Subscribed. What is known of a part stays with it while it is the same. They are declared on the consume connection,
// so that publishing never waits for them: all on each session, later those that lack and those whose messages come
// back. Only what goes with an exchange that a message did not find is declared by the publisher.
func (b *Broker) SetParts(parts map[string]Topology) {
	b.mu.Lock()
	known := b.parts
	b.parts, b.partOf = make(map[string]*part, len(parts)), map[string]*part{}
	for name, t := range parts {
		p := known[name]
		if p == nil || !reflect.DeepEqual(p.topology, t) {
			p = &part{name: name, topology: t, lacks: errUndeclared}
		}
		b.parts[name] = p
		for _, q := range t.Queues {
			b.partOf[q.Name] = p
		}
	}
	b.announce()
	b.mu.Unlock()
	b.consuming.redeclare()
}

// Declared returns nil when the part is declared, else why it is not.
func (b *Broker) Declared(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.parts[name]; p != nil {
		return p.lacks
	}
	return errUndeclared
}

// declare declares the topology and the wanted parts on a session. An error ends the session; a refused part is none.
func (b *Broker) declare(s *session, wanted func(*part) bool) error {
	if err := s.declare(b.currentTopology()); err != nil {
		return err
	}
	return b.declareParts(s, wanted)
}

// doubt marks the parts of which something may have been deleted: a queue, a binding or an exchange (A8).
func (b *Broker) doubt(affected func(Topology) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.parts {
		p.doubtful = p.doubtful || affected(p.topology)
	}
}

// declareParts declares the wanted parts, each on a channel of its own: a refusal closes the channel.
func (b *Broker) declareParts(s *session, wanted func(*part) bool) error {
	for _, p := range b.takeParts(wanted) {
		err := s.declare(p.topology)
		if err != nil && !refused(err) {
			return err
		}
		b.note(p, err)
	}
	return nil
}

// What is wanted of the parts. Asked under Broker.mu.
func every(*part) bool     { return true }
func lacking(p *part) bool { return p.lacks != nil || p.doubtful }

// missing is the exchange that the broker says it does not have, with what tells the parts that have it; "" and every
// part if none of theirs is named.
func (b *Broker) missing(err error) (exchange string, affected func(Topology) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.parts {
		for _, x := range p.topology.Exchanges {
			if strings.Contains(err.Error(), "'"+x.Name+"'") {
				return x.Name, func(t Topology) bool {
					return slices.ContainsFunc(t.Exchanges, func(y Exchange) bool { return y.Name == x.Name })
				}
			}
		}
	}
	return "", func(Topology) bool { return true }
}

// around is what goes when an exchange is deleted: itself, and all bindings to and from it, of the parts that are
// declared.
func (b *Broker) around(exchange string) Topology {
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone Topology
	for _, p := range b.parts {
		if p.lacks != nil {
			continue
		}
		for _, x := range p.topology.Exchanges {
			if (x.Name == exchange || x.Parent == exchange) && !slices.Contains(gone.Exchanges, x) {
				gone.Exchanges = append(gone.Exchanges, x)
			}
		}
		for _, q := range p.topology.Queues {
			if q.BindExchange == exchange {
				gone.Queues = append(gone.Queues, q)
			}
		}
	}
	return gone
}

// takeParts lists the wanted parts by name, so that they are always declared in the same order. The caller declares
// them: none is doubtful any more.
func (b *Broker) takeParts(wanted func(*part) bool) []*part {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []*part
	for _, name := range slices.Sorted(maps.Keys(b.parts)) {
		if p := b.parts[name]; wanted(p) {
			p.doubtful = false
			list = append(list, p)
		}
	}
	return list
}

// refused reports whether the broker has refused a declaration and closed no more than its channel.
func refused(err error) bool {
	var wrong *MisconfiguredError
	var refusal *amqp.Error
	return errors.As(err, &wrong) || errors.As(err, &refusal) && refusal.Server && refusal.Recover
}

// note records what became of a part's declaration. One text is logged once, by whichever connection it was met.
func (b *Broker) note(p *part, err error) {
	if err != nil {
		err = errors.New(scrub(err.Error(), b.addresses))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before := p.lacks
	if textOf(before) == textOf(err) {
		return
	}
	p.lacks = err
	b.announce()
	switch {
	case err != nil:
		b.log.Warn("part of the topology refused", zap.String("part", p.name), zap.String("reason", err.Error()))
	case !errors.Is(before, errUndeclared):
		b.log.Info("part of the topology no longer refused", zap.String("part", p.name))
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// usable reports whether a queue may be consumed: the part that has it, if any, is declared. Callers hold b.mu.
func (b *Broker) usable(queue string) bool {
	p := b.partOf[queue]
	return p == nil || p.lacks == nil
}
