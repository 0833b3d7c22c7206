package deploy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/deploy"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// powerless is a disk that loses its power. A file whose text was not synced before it got its name is then empty, as
// happens on some file systems; a name that was not synced is the one before.
type powerless struct {
	mu       sync.Mutex
	synced   map[string]bool   // files whose text is on the disk, by path
	before   map[string][]byte // of names that are not on the disk yet: what they stood for
	unsynced []string          // names of files that would be empty
}

func (d *powerless) sync(f *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		clear(d.before)
		return f.Sync()
	}
	d.synced[f.Name()] = true
	return errors.Join(err, f.Sync())
}

func (d *powerless) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.synced[from] {
		d.unsynced = append(d.unsynced, to)
	}
	delete(d.synced, from)
	old, err := os.ReadFile(to)
	if err != nil {
		old = nil
	}
	d.before[to] = old
	return os.Rename(from, to)
}

// fail is the loss of power.
func (d *powerless) fail() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, path := range d.unsynced {
		_ = os.Truncate(path, 0)
	}
	for path, text := range d.before {
		if text == nil {
			Expect(os.Remove(path)).To(Succeed())
			continue
		}
		Expect(os.WriteFile(path, text, 0o600)).To(Succeed())
	}
}

var _ = Describe("Work files", func() {
	It("outlive a loss of power at any call (D19)", func() {
		for k := 1; k <= 30; k++ {
			By(fmt.Sprintf("call %d", k))
			s := newSite()
			s.running("old", 2)
			d := &powerless{synced: map[string]bool{}, before: map[string][]byte{}}
			s.onDisk = func(e *deploy.Engine) { deploy.OnDisk(e, d.sync, d.rename) }
			s.set(func(s *site) { s.killAt, s.settles = k, false })
			p := s.start()
			order := s.put(func(o *messages.Order) { o.ComponentType = "manager" })
			Eventually(func() bool {
				select {
				case <-p.dead:
					return true
				default:
					return len(s.reported(order)) > 0
				}
			}).Should(BeTrue())
			s.set(func(s *site) { s.kill() })
			Eventually(p.dead).Should(BeClosed())
			d.fail()
			s.onDisk = nil
			s.set(func(s *site) { s.killAt = 0 })
			s.start()
			r := s.result(order)
			Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
			Expect(r.ReplacedUnits()).To(HaveLen(2))
			for _, u := range r.ReplacedUnits() {
				Expect(u.Options).To(Equal(unitOf("old").Options), "what was found is still known")
			}
			Expect(filepath.Glob(filepath.Join(s.dir, "work", "*.damaged"))).To(BeEmpty())
		}
	})

	It("that cannot be written keep the deploy from beginning (D17)", func() {
		s := newSite()
		s.running("old", 1)
		s.onDisk = func(e *deploy.Engine) {
			deploy.OnDisk(e, (*os.File).Sync, func(string, string) error { return errors.New("no space left on device") })
		}
		s.start()
		r := s.result(s.put())
		Expect(r.Message).To(Equal("the work file cannot be written, so nothing is touched: save work on order " + r.OrderID +
			": no space left on device"))
		Expect(r.Touched).To(BeFalse())
		Expect(s.shows()).To(Equal([]string{"1:old"}))
	})

	Describe("of a newer release, in a stage that is not known here,", func() {
		newer := func(holder string) (s *site, order string, logs *observer.ObservedLogs) {
			s = newSite()
			s.running("old", 3)
			order = s.put()
			s.applied = func() { s.kill(); s.applied = func() {} }
			killed := s.start()
			Eventually(killed.dead).Should(BeClosed())
			s.rewrite(order, func(w map[string]any) { w["stage"], w["winter"] = "hibernating", true })
			s.set(func(s *site) { s.orders[order].Holder = holder })
			core, logs := observer.New(zap.ErrorLevel)
			s.start(func(c *deploy.Config) { c.Log = zap.New(core) })
			return s, order, logs
		}

		It("are left alone and told, and other orders go on", func() {
			s, order, logs := newer("elsewhere")
			Eventually(func() int { return logs.FilterMessageSnippet("newer release").Len() }).Should(Equal(1))
			Expect(s.result(s.put(of("app", "v1"))).EventType).To(Equal(messages.EventMilestoneCompleted))
			Expect(s.reported(order)).To(BeEmpty())
			Expect(s.file(order)).To(And(HaveKeyWithValue("stage", "hibernating"), HaveKeyWithValue("winter", true)))
			Expect(s.shows()).To(Equal([]string{"1:new", "2:old", "3:old"}))
		})

		It("say what to return to, when manager-api gives the order's next attempt to this host", func() {
			s, order, _ := newer(host)
			r := s.result(order) // its claim is resumed
			Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
			Expect(r.ReplacedUnits()).To(HaveLen(3))
			Expect(r.ReplacedUnits()[0].Options).To(Equal(unitOf("old").Options))
			Eventually(s.workFiles).Should(BeEmpty())
		})
	})
})
