package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/deploy"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/memory"
	"github.com/openaperture/openaperture/pkg/deploy/render"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// site is everything around one engine: manager-api, broker and cluster, which outlive its restarts. Every call of the
// engine passes through at, which can kill it.
type site struct {
	mu      sync.Mutex
	cluster *memory.Cluster
	dir     string
	calls   int
	killAt  int // the call that kills the engine; 0: none
	after   bool
	kill    context.CancelFunc
	trace   []string

	orders      map[string]*managerapi.OrderView
	queue       chan messages.Order
	token       int64
	tokens      []int64 // in the order in which they were given out
	down        bool    // manager-api does not answer
	mute        string  // the version that does not answer while any of it runs
	superseded  bool    // renewals are refused
	brokerDown  bool
	clusterSays error         // what the cluster answers; nil: it works
	applied     func()        // called after every apply
	changed     chan struct{} // closed at the next change of the broker
	session     uint64        // of the broker
	extension   time.Duration // of an order's deadline at every renewal; 0: none
	watched     bool          // manager-api keeps the clock of what it has learned
	settles     bool          // orders are settled as soon as a result has come
	ignores     bool          // success is not learned: the new manager-api is deaf
	results     []rabbit.Message
	published   []trace.TraceID // of every publication
	renewals    int
	released    []string
	renewed     map[string]int // renewals, by order
	bootAlive   int            // so many claims are answered as if another process of the hostname renewed them
	refuses     string         // the order whose claim fails, as by a fault of manager-api
	impatience  time.Duration  // manager-api closes an order of which it hears nothing for so long; 0: none
	heardAt     map[string]time.Time
	gitHost     chan struct{}        // closed when git hosts answer; nil: at once
	onDisk      func(*deploy.Engine) // changes what the work files are written through; nil: nothing
	nameless    bool                 // the cluster does not name its machines
	announced   map[string][]string  // capabilities, by the call that announced them
	render      func(render.Request) (render.Release, error)
}

func newSite() *site {
	return &site{cluster: memory.New(), dir: GinkgoT().TempDir(), orders: map[string]*managerapi.OrderView{},
		settles: true, changed: make(chan struct{}),
		announced: map[string][]string{}, renewed: map[string]int{}, heardAt: map[string]time.Time{},
		queue: make(chan messages.Order, 16), kill: func() {}, applied: func() {}}
}

// at counts a call and performs it, unless the engine is killed before it. A killed engine sees nothing of what
// follows.
func (s *site) at(ctx context.Context, what string, do func() error) error {
	s.mu.Lock()
	s.calls++
	s.trace = append(s.trace, what)
	deadly := s.killAt > 0 && s.calls >= s.killAt
	before := deadly && !s.after
	kill := s.kill
	s.mu.Unlock()
	if before {
		kill()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := func() error {
		s.mu.Lock()
		defer s.mu.Unlock() // also when it panics
		return do()
	}()
	if deadly {
		kill()
		return context.Canceled
	}
	return err
}

var errDown = fault.New(fault.Unavailable, "manager-api does not answer")

func (s *site) manager(ctx context.Context, what, id string, do func(*managerapi.OrderView) error) error {
	return s.at(ctx, what, func() error {
		if s.down || s.mute != "" && strings.Contains(strings.Join(s.shows(), " "), s.mute) {
			return errDown
		}
		v, ok := s.orders[id]
		if !ok {
			return fault.New(fault.NotFound, "no order %s", id)
		}
		return do(v)
	})
}

func (s *site) Claim(ctx context.Context, id string, r managerapi.ClaimRequest) (managerapi.Claim, error) {
	var k managerapi.Claim
	return k, s.manager(ctx, "claim", id, func(v *managerapi.OrderView) error {
		s.announced["claim"] = r.Capabilities
		if s.bootAlive > 0 {
			s.bootAlive--
			return fault.New(fault.Unavailable, "another process of this hostname holds the order").WithCode("boot_alive")
		}
		if s.refuses == id {
			return fault.New(fault.Internal, "it has a fault")
		}
		switch {
		case v.State != "open" && v.State != "claimed":
			return fault.New(fault.Conflict, "ended").WithCode("order_ended")
		case v.Attempt != r.Attempt:
			return fault.New(fault.Conflict, "old attempt").WithCode("old_attempt")
		case v.Holder != "" && v.Holder != r.Hostname:
			return fault.New(fault.Conflict, "held").WithCode("held")
		}
		s.token++
		s.tokens = append(s.tokens, s.token)
		v.State, v.Holder, v.Token = "claimed", r.Hostname, s.token
		k = managerapi.Claim{Token: s.token, ExpiresInMS: 60, DeadlineInMS: time.Until(v.Order.Deadline).Milliseconds(),
			Order: *v.Order}
		return nil
	})
}

func (s *site) Renew(ctx context.Context, id string, token int64) (managerapi.Claim, error) {
	var k managerapi.Claim
	return k, s.manager(ctx, "renew", id, func(v *managerapi.OrderView) error {
		s.renewals++
		s.renewed[id]++
		if s.impatience > 0 && time.Since(s.heardAt[id]) > s.impatience {
			v.State, v.Token = "closed", v.Token+1
		}
		if s.extension > 0 {
			k.Order = *v.Order
			k.Order.Deadline, k.DeadlineInMS = time.Now().Add(s.extension), s.extension.Milliseconds()
		}
		if s.superseded || v.Token > token {
			return fault.New(fault.Conflict, "superseded").WithCode("superseded")
		}
		return nil
	})
}

func (s *site) ReleaseClaim(ctx context.Context, id string, _ int64) error {
	return s.manager(ctx, "release", id, func(v *managerapi.OrderView) error {
		v.State, v.Holder = "open", ""
		s.released = append(s.released, id)
		return nil
	})
}

func (s *site) Order(ctx context.Context, id string) (managerapi.OrderView, error) {
	var out managerapi.OrderView
	return out, s.manager(ctx, "order", id, func(v *managerapi.OrderView) error { out = *v; return nil })
}

func (s *site) ClaimsOf(ctx context.Context, e managerapi.Executor) ([]managerapi.OrderView, error) {
	var out []managerapi.OrderView
	return out, s.at(ctx, "claims", func() error {
		if s.down {
			return errDown
		}
		s.announced["claims"] = e.Capabilities
		for _, v := range s.orders {
			if v.Holder == e.Hostname && v.State == "claimed" {
				out = append(out, *v)
			}
		}
		return nil
	})
}

func (s *site) Publish(ctx context.Context, m rabbit.Message) error {
	return s.at(ctx, "publish", func() error {
		if s.brokerDown {
			return &rabbit.PublishError{Outcome: rabbit.NotSent, Err: rabbit.ErrUnavailable}
		}
		r, known, err := messages.DecodeResult(m.Body)
		Expect(err).NotTo(HaveOccurred())
		Expect(known).To(BeTrue())
		s.results, s.published = append(s.results, m), append(s.published, trace.SpanContextFromContext(ctx).TraceID())
		v := s.orders[r.OrderID]
		if s.impatience > 0 && time.Since(s.heardAt[r.OrderID]) > s.impatience {
			v.State, v.Token = "closed", v.Token+1
		}
		s.heardAt[r.OrderID] = time.Now()
		if s.ignores && r.EventType == messages.EventMilestoneCompleted || r.Token < v.Token ||
			r.EventType == messages.EventMilestoneProgress {
			return nil
		}
		v.State, v.Holder, v.Settled, v.Watched = "completed", "", s.settles, s.watched
		if r.EventType == messages.EventMilestoneFailed {
			v.State = "failed"
		}
		return nil
	})
}

func (s *site) Watch() <-chan struct{} { s.mu.Lock(); defer s.mu.Unlock(); return s.changed }

func (s *site) Session() uint64 { s.mu.Lock(); defer s.mu.Unlock(); return s.session }

func (s *site) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.brokerDown {
		return rabbit.ErrUnavailable
	}
	return nil
}

// delivered is the trace of every delivery.
var delivered = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2},
	TraceFlags: trace.FlagsSampled})

// Consume delivers what is in the queue, one order after the other. A delivery that was not handled comes again, and
// keeps no other from being handled. What was not settled when the engine died is delivered again.
func (s *site) Consume(ctx context.Context, c rabbit.Consumer) error {
	later := make(chan messages.Order, 64)
	var waiting sync.WaitGroup
	defer func() {
		waiting.Wait()
		for len(later) > 0 {
			s.queue <- <-later
		}
	}()
	for {
		var order messages.Order
		select {
		case <-ctx.Done():
			return nil
		case order = <-s.queue:
		case order = <-later:
		}
		body, err := json.Marshal(order)
		Expect(err).NotTo(HaveOccurred())
		err = c.Handle(trace.ContextWithSpanContext(context.WithoutCancel(ctx), delivered), &rabbit.Delivery{Body: body})
		if err != nil {
			waiting.Go(func() {
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
				later <- order
			})
		}
	}
}

func (s *site) Render(ctx context.Context, r render.Request) (render.Release, error) {
	var out render.Release
	var failed error
	err := s.at(ctx, "render", func() error { out, failed = s.render(r); return nil })
	return out, errors.Join(err, failed)
}

// Resolve asks the site's git host, once it is let.
func (s *site) Resolve(ctx context.Context, refs []messages.GitRef) []messages.Resolved {
	out := make([]messages.Resolved, len(refs))
	for i, r := range refs {
		out[i] = messages.Resolved{Repo: r.Repo, Ref: r.Ref, Kind: messages.RefBranch, Commit: "c-" + r.Ref}
	}
	if s.gitHost != nil {
		select {
		case <-s.gitHost:
		case <-ctx.Done():
		}
	}
	_ = s.at(ctx, "resolve", func() error { return nil })
	return out
}

// watched is the cluster behind the site's hook.
type watched struct {
	*memory.Cluster
	s *site
}

func (w watched) Apply(ctx context.Context, d messages.UnitDefinition, token int64, restart bool) error {
	return w.s.at(ctx, "apply", func() error {
		defer w.s.applied()
		return w.Cluster.Apply(ctx, d, token, restart)
	})
}
func (w watched) Machines(ctx context.Context) (all []runtime.Machine, err error) {
	err = w.s.at(ctx, "machines", func() error {
		if w.s.nameless {
			return runtime.ErrRefused
		}
		all, err = w.Cluster.Machines(ctx)
		return err
	})
	return all, err
}
func (w watched) Unplaced(ctx context.Context, wanted []messages.UnitDefinition) (why string, err error) {
	err = w.s.at(ctx, "unplaced", func() error {
		why, err = w.Cluster.Unplaced(ctx, wanted)
		return err
	})
	return why, err
}
func (w watched) Fence(ctx context.Context, name string, token int64) error {
	return w.s.at(ctx, "fence", func() error { return w.Cluster.Fence(ctx, name, token) })
}
func (w watched) Remove(ctx context.Context, name string, token int64) error {
	return w.s.at(ctx, "remove", func() error { return w.Cluster.Remove(ctx, name, token) })
}
func (w watched) List(ctx context.Context, bases []string) (all []runtime.Instance, err error) {
	err = w.s.at(ctx, "list", func() error {
		if w.s.clusterSays != nil {
			return w.s.clusterSays
		}
		all, err = w.Cluster.List(ctx, bases)
		return err
	})
	return all, err
}

// process is one running engine.
type process struct {
	stop func() // gracefully, and waits
	dead chan struct{}
}

const host = "box.deployer-oa-1"

func (s *site) config() deploy.Config {
	return deploy.Config{Service: "deployer-oa", Milestone: messages.MilestoneDeployOA, Queue: "q",
		Address:  messages.Address{Name: "e", Root: "root", RoutingKey: "a"},
		Hostname: host, BootID: uuid.NewString(), StateDir: s.dir, ClaimTTL: 60 * time.Millisecond, Manager: s, Broker: s,
		Renderer: s,
		Open:     func(messages.Cluster) (runtime.Runtime, error) { return watched{s.cluster, s}, nil }, Log: zap.NewNop(),
		Patience: 50 * time.Millisecond}
}

func (s *site) start(change ...func(*deploy.Config)) *process {
	c := s.config()
	for _, f := range change {
		f(&c)
	}
	engine, err := deploy.New(c)
	Expect(err).NotTo(HaveOccurred())
	if s.onDisk != nil {
		s.onDisk(engine)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.mu.Lock()
	s.kill = cancel
	s.mu.Unlock()
	stop := make(chan struct{})
	p := &process{dead: make(chan struct{})}
	go func() {
		defer GinkgoRecover()
		defer close(p.dead)
		Expect(engine.Run(ctx, stop)).To(Succeed())
	}()
	p.stop = sync.OnceFunc(func() { close(stop); Eventually(p.dead).Should(BeClosed()) })
	DeferCleanup(func() { cancel(); Eventually(p.dead).Should(BeClosed()) })
	return p
}

// unitOf is a template whose definition is told apart by version.
func unitOf(version string) messages.UnitDefinition {
	return messages.UnitDefinition{Name: "overseer@.service",
		Options: []messages.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/overseer " + version}}}
}

// put has an order made, sent and waiting.
func (s *site) put(change ...func(*messages.Order)) string {
	three := 3
	o := messages.Order{OrderID: uuid.NewString(), WorkflowID: "w1", Attempt: 1, CurrentStep: messages.MilestoneDeployOA,
		Deadline:         time.Now().Add(time.Hour),
		HealthDeadlineMS: 20_000, ProgressDeadlineMS: 3_600_000, ComponentType: "overseer", DeploymentRepo: "org/repo",
		Cluster:         &messages.Cluster{EtcdToken: "c", Runtime: "memory"},
		DeployableUnits: []messages.UnitDefinition{unitOf("new")},
		FleetConfig:     &messages.FleetConfig{InstanceCount: &three}}
	for _, f := range change {
		f(&o)
	}
	s.mu.Lock()
	s.heardAt[o.OrderID] = time.Now()
	s.orders[o.OrderID] = &managerapi.OrderView{ID: o.OrderID, State: "open", Attempt: o.Attempt, Order: &o,
		Milestone: o.CurrentStep}
	s.mu.Unlock()
	s.queue <- o
	return o.OrderID
}

// running has instances 1..n of a version running.
func (s *site) running(version string, n int) {
	for i := 1; i <= n; i++ {
		d := unitOf(version)
		d.Name = fmt.Sprintf("overseer@%d.service", i)
		Expect(s.cluster.Apply(context.Background(), d, 0, false)).To(Succeed())
	}
}

// shows lists what runs as "1:new".
func (s *site) shows() []string {
	all, err := s.cluster.List(context.Background(), []string{"overseer"})
	Expect(err).NotTo(HaveOccurred())
	var list []string
	for _, i := range all {
		version := i.Definition.Options[0].Value[len("/bin/overseer "):]
		list = append(list, i.Sighting.Name[len("overseer@"):len(i.Sighting.Name)-len(".service")]+":"+version)
	}
	return list
}

// reported lists the distinct final results of an order, newest last.
func (s *site) reported(order string) []messages.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []messages.Result
	var ids []string
	for _, m := range s.results {
		r, _, err := messages.DecodeResult(m.Body)
		Expect(err).NotTo(HaveOccurred())
		if r.OrderID == order && r.EventType != messages.EventMilestoneProgress && !slices.Contains(ids, m.ID) {
			list, ids = append(list, r), append(ids, m.ID)
		}
	}
	return list
}

func (s *site) result(order string) messages.Result {
	Eventually(func() int { return len(s.reported(order)) }).ShouldNot(BeZero())
	list := s.reported(order)
	return list[len(list)-1]
}

func (s *site) set(change func(*site)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *site) get(read func(*site) int) func() int {
	return func() int { s.mu.Lock(); defer s.mu.Unlock(); return read(s) }
}

// count is how often the engine has made such a call.
func (s *site) count(what string) func() int {
	return s.get(func(s *site) (n int) {
		for _, call := range s.trace {
			if call == what {
				n++
			}
		}
		return n
	})
}

// workFiles lists the work files.
func (s *site) workFiles() []string {
	list, err := filepath.Glob(filepath.Join(s.dir, "work", "*.json"))
	Expect(err).NotTo(HaveOccurred())
	return list
}

func (s *site) file(order string) map[string]any {
	text, err := os.ReadFile(filepath.Join(s.dir, "work", order+".json"))
	Expect(err).NotTo(HaveOccurred())
	var m map[string]any
	Expect(json.Unmarshal(text, &m)).To(Succeed())
	return m
}

// rewrite changes the work file of an order.
func (s *site) rewrite(order string, change func(map[string]any)) {
	w := s.file(order)
	change(w)
	text, err := json.Marshal(w)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(filepath.Join(s.dir, "work", order+".json"), text, 0o600)).To(Succeed())
}

func reasons(r messages.Result) []string {
	return []string{r.EventType, string(r.Cause), r.Reason}
}

// failed is a failure with this reason, and with the cause that the reason has in the specs of this package.
func failed(reason failure.Reason) []string {
	cause := messages.CauseEnvironment
	if reason == blame.DeployUnhealthy || reason == blame.NotSettled {
		cause = messages.CauseVersion
	}
	return []string{messages.EventMilestoneFailed, string(cause), string(reason)}
}
