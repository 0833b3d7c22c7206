package deploy_test

import (
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/deploy/memory"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// story is one order from beginning to end, told with and without deaths.
type story struct {
	breaks []string
	change []func(*messages.Order)
	end    []string // what runs at the end
	starts []string // what was started on the way, in order
	result []string
	deaf   bool // manager-api is replaced by one that does not hear
}

func started(version string, instances ...int) []string {
	list := make([]string, len(instances))
	for i, n := range instances {
		list[i] = fmt.Sprintf("overseer@%d.service %s", n, memory.Hash(unitOf(version))[:6])
	}
	return list
}

var stories = map[string]story{
	"a deploy": {
		end: []string{"1:new", "2:new", "3:new"}, starts: started("new", 1, 2, 3),
		result: []string{messages.EventMilestoneCompleted, "", ""},
	},
	"a deploy that puts back": {
		breaks: []string{"new"}, change: []func(*messages.Order){impatient},
		end: []string{"1:old", "2:old", "3:old", "4:old"}, starts: slices.Concat(started("new", 1), started("old", 1)),
		result: failed(blame.DeployUnhealthy),
	},
	"a deploy of a deaf manager-api and its undoing": {
		deaf: true, change: []func(*messages.Order){func(o *messages.Order) {
			o.ComponentType,
				o.ProgressDeadlineMS = "manager", 30
		}},
		end: []string{"1:old", "2:old", "3:old", "4:old"}, starts: slices.Concat(started("new", 1, 2, 3),
			started("old", 1, 2, 3, 4)),
		result: failed(blame.NotSettled),
	},
}

// tell runs a story; every engine is killed at the given call of its life until deaths are used up, then one lives.
func (st story) tell(killAt, deaths int, after bool) *site {
	s := newSite()
	s.running("old", 4)
	before := len(s.cluster.Starts())
	s.set(func(s *site) { s.ignores = st.deaf })
	breaks(s, st.breaks...)
	order := s.put(st.change...)
	for range deaths {
		s.set(func(s *site) { s.calls, s.killAt, s.after = 0, killAt, after })
		p := s.start()
		finished := func() bool {
			select {
			case <-p.dead:
				return true
			default:
				return len(s.reported(order)) > 0 && len(s.workFiles()) == 0
			}
		}
		Eventually(finished).Should(BeTrue())
		s.set(func(s *site) { s.kill() })
		Eventually(p.dead).Should(BeClosed())
	}
	s.set(func(s *site) { s.killAt = 0 })
	s.start()
	s.result(order)
	Eventually(s.workFiles).Should(BeEmpty())
	r := s.result(order)

	Expect(reasons(r)).To(Equal(st.result))
	Expect(r.Undone).To(Equal(r.Reason == string(blame.NotSettled)))
	Expect(r.Touched).To(BeTrue())
	Expect(r.ReplacedUnits()).To(HaveLen(4))
	for _, d := range r.ReplacedUnits() {
		Expect(d.Options).To(Equal(unitOf("old").Options))
	}
	Expect(s.shows()).To(Equal(st.end))
	Expect(s.cluster.Starts()[before:]).To(Equal(st.starts), "nothing is started twice")
	s.set(func(s *site) {
		Expect(slices.IsSorted(s.tokens)).To(BeTrue())
		Expect(s.tokens).To(Equal(slices.Compact(slices.Clone(s.tokens))))
	})
	return s
}

var _ = Describe("An engine that is killed", func() {
	for name, st := range stories {
		It("at any call it makes has "+name+" finished by the next one (D1)", func() {
			calls := st.tell(0, 1, false).get(func(s *site) int { return s.calls })()
			Expect(calls).To(BeNumerically(">", 8))
			for _, after := range []bool{false, true} {
				for k := 1; k <= calls+2; k++ {
					By(fmt.Sprintf("call %d, after=%t", k, after))
					st.tell(k, 1, after)
				}
			}
		})

		It("again and again gets "+name+" done (D1)", func() {
			for k := 4; k <= 12; k++ {
				st.tell(k, 12, k%2 == 0)
			}
		})
	}
})
