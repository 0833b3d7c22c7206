package deploy

import (
	"sync"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// maxSeen bounds what a process remembers of its orders.
const maxSeen = 1000

// seen is the orders that this process has claimed, each with its last attempt. It keeps an order from being taken
// twice, and is safe for concurrent use. What is forgotten and delivered again is refused at its claim: the order has
// ended.
type seen struct {
	mu       sync.Mutex
	attempts map[string]int
}

func (s *seen) add(o messages.Order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempts == nil || len(s.attempts) > maxSeen {
		s.attempts = map[string]int{}
	}
	s.attempts[o.OrderID] = max(s.attempts[o.OrderID], o.Attempt)
}

// remove lets an order be taken that is sent to this process again, also at the same attempt: one that was given back.
func (s *seen) remove(o messages.Order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.attempts, o.OrderID)
}

func (s *seen) knows(o messages.Order) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts[o.OrderID] >= o.Attempt
}
