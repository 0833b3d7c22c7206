package fleet_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy/fleet"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// replay answers with what a real fleet answered (testdata), whatever the host and the body of the request.
type replay struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]*http.Response
	bodies  map[string][]byte
	asked   []string
	sent    map[string]any // body of the last PUT
	targets []any          // desiredState of every PUT
	header  http.Header    // of the last request
}

func newReplay(files ...string) *replay {
	r := &replay{answers: map[string]*http.Response{}, bodies: map[string][]byte{}}
	for _, name := range files {
		r.record(name)
	}
	r.Server = httptest.NewServer(r)
	DeferCleanup(r.Close)
	return r
}

func (r *replay) record(name string) {
	text, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	Expect(err).NotTo(HaveOccurred())
	var request, status string
	header, body := http.Header{}, ""
	for line := range strings.Lines(string(text)) {
		clean := strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(clean, "> ") && request == "":
			request = clean
		case strings.HasPrefix(clean, "< HTTP/1.1 "):
			status, body = clean, ""
		case strings.HasPrefix(clean, "< "):
			if key, value, ok := strings.Cut(clean[2:], ": "); ok {
				header.Set(key, value)
			}
		default:
			body += clean
		}
	}
	words := strings.Fields(request) // "> GET /path HTTP/1.1"
	code, err := strconv.Atoi(strings.Fields(status)[2])
	Expect(err).NotTo(HaveOccurred(), name)
	key := words[1] + " " + words[2]
	r.answers[key], r.bodies[key] = &http.Response{StatusCode: code, Header: header}, []byte(body)
}

func (r *replay) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := q.Method + " " + q.URL.RequestURI()
	if unescaped := strings.ReplaceAll(key, "%3D", "="); r.answers[key] == nil {
		key = unescaped
	}
	r.asked, r.header = append(r.asked, key), q.Header
	if q.Method == http.MethodPut {
		r.sent = map[string]any{}
		_ = json.NewDecoder(q.Body).Decode(&r.sent)
		r.targets = append(r.targets, r.sent["desiredState"])
	}
	res, ok := r.answers[key]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	for name := range res.Header {
		if name == "Content-Type" {
			w.Header().Set(name, res.Header.Get(name))
		}
	}
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(r.bodies[key])
}

// looks counts the requests of a key.
func (r *replay) looks(key string) func() int {
	return func() (n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, asked := range r.asked {
			if asked == key {
				n++
			}
		}
		return n
	}
}

// desired are the states that were asked for.
func (r *replay) desired() []any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.targets)
}

// answer sets an answer by hand.
func (r *replay) answer(key string, status int, body any) {
	raw, err := json.Marshal(body)
	Expect(err).NotTo(HaveOccurred())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[key], r.bodies[key] = &http.Response{StatusCode: status, Header: http.Header{}}, raw
}

func (r *replay) cluster() *fleet.Cluster {
	c, err := fleet.New(r.URL, "t0ken")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(c.Close)
	return c
}

func definition(name, command string) messages.UnitDefinition {
	return messages.UnitDefinition{Name: name, Options: []messages.Option{
		{Section: "Unit", Name: "Description", Value: "hello"}, {Section: "Service", Name: "ExecStart", Value: command}}}
}

// controlMachine is the one of role control, as recorded.
const controlMachine = "b7403c4421ea4e91abba8d2935fdb817"

// demand is one option of X-Fleet.
func demand(name, value string) []unit.Option {
	return []unit.Option{{Section: "X-Fleet", Name: name, Value: value}}
}

// other is a unit as a fleet shows it.
func other(name, desired, machine string, options ...unit.Option) map[string]any {
	return map[string]any{"name": name, "options": options, "desiredState": desired, "machineID": machine}
}

var _ = Describe("A real fleet", func() {
	ctx := context.Background()

	It("has machines", func() {
		Expect(newReplay("03-machines").cluster().Machines(ctx)).To(HaveLen(3))
	})

	It("does not say under which host name a unit will report itself: its metadata are the owner's", func() {
		r := newReplay()
		r.answer("GET /fleet/v1/machines", 200, map[string]any{"machines": []any{
			map[string]any{"id": "m1", "metadata": map[string]any{"role": "app", "hostname": "box"}}}})
		Expect(r.cluster().Machines(ctx)).To(Equal([]runtime.Machine{
			{ID: "m1", Metadata: map[string]string{"role": "app", "hostname": "box"}}}))
	})

	It("lists nothing as {}", func() {
		Expect(newReplay("05-units-empty", "06-state-empty").cluster().List(ctx, []string{"hello"})).To(BeEmpty())
	})

	It("shows an instance with its definition and health", func() {
		all, err := newReplay("09-units", "10-state").cluster().List(ctx, []string{"hello"})
		Expect(err).NotTo(HaveOccurred())
		Expect(all).To(HaveLen(1))
		Expect(all[0].Definition).To(Equal(definition("hello.service", "/bin/sleep 3600")))
		Expect(all[0].Sighting.Health).To(Equal(roll.Healthy))
		Expect(all[0].Sighting.Hash).To(Equal("47f0084368692956938df2280fe087a88a685237"))
		Expect(all[0].Machines).To(HaveLen(1))
	})

	It("shows the version that a definition carries, and sends it", func() {
		plain := []unit.Option{{Section: "Service", Name: "ExecStart", Value: "/a"}}
		v1 := unit.WithVersion(plain, unit.Version{Ref: "v1", Commit: "c1"})
		stored := map[string]any{"name": "a@1.service", "options": unit.WithToken(v1, 9), "desiredState": "launched"}
		r := newReplay("21-put-other-options")
		r.answer("GET /fleet/v1/units", 200, map[string]any{"units": []any{stored}})
		r.answer("GET /fleet/v1/state", 200, map[string]any{})
		r.answer("GET /fleet/v1/units/a@1.service", 200, stored)
		r.answer("PUT /fleet/v1/units/a@1.service", 201, nil)
		all, err := r.cluster().List(ctx, []string{"a"})
		Expect(err).NotTo(HaveOccurred())
		Expect(all).To(HaveLen(1))
		d := all[0].Definition
		Expect(d.Options[1:]).To(Equal([]messages.Option{{Section: "X-OpenAperture", Name: "Version", Value: "v1"},
			{Section: "X-OpenAperture", Name: "Commit", Value: "c1"}}))
		Expect(r.cluster().Apply(ctx, d, 9, false)).To(Succeed())
		Expect(r.sent).NotTo(HaveKey("options"), "it has that definition")
		d.Options[1].Value = "v2"
		Expect(r.cluster().Apply(ctx, d, 9, false)).To(Succeed())
		Expect(r.sent["options"]).To(ContainElement(map[string]any{"section": "X-OpenAperture", "name": "Version",
			"value": "v2"}))
	})

	It("is asked for whole names only", func() {
		Expect(newReplay("09-units", "10-state").cluster().List(ctx, []string{"ello", "hell", "hello@"})).To(BeEmpty())
	})

	It("gives its lists in pages", func() {
		r := newReplay("70-units-page-1", "71-units-page-2", "06-state-empty")
		var names struct{ Units []struct{ Name string } }
		seen := map[string]bool{}
		for _, key := range []string{"GET /fleet/v1/units", "GET /fleet/v1/units?nextPageToken=ZAACAA=="} {
			names.Units = nil
			Expect(json.Unmarshal(r.bodies[key], &names)).To(Succeed())
			for _, u := range names.Units {
				n, err := unit.ParseName(u.Name)
				Expect(err).NotTo(HaveOccurred())
				seen[n.Base] = true
			}
		}
		var bases []string
		for b := range seen {
			bases = append(bases, b)
		}
		all, err := r.cluster().List(ctx, bases)
		Expect(err).NotTo(HaveOccurred())
		Expect(len(all)).To(BeNumerically(">", 100))
	})

	It("gets a new instance, launched and tagged", func() {
		r := newReplay("07-put-new")
		Expect(r.cluster().Apply(ctx, definition("hello.service", "/bin/sleep 3600"), 7, false)).To(Succeed())
		Expect(r.sent["desiredState"]).To(Equal("launched"))
		Expect(r.sent["options"]).To(ContainElement(map[string]any{"section": "X-OpenAperture", "name": "Token",
			"value": "7"}))
		Expect(r.header.Get("X-OpenAperture-Token")).To(Equal("7"))
		Expect(r.header.Get("Authorization")).To(Equal("Bearer t0ken"))
	})

	It("gets other options by one PUT, without a DELETE", func() {
		r := newReplay("08-get-unit", "21-put-other-options")
		Expect(r.cluster().Apply(ctx, definition("hello.service", "/bin/sleep 7200"), 7, false)).To(Succeed())
		Expect(r.asked).To(Equal([]string{"GET /fleet/v1/units/hello.service", "PUT /fleet/v1/units/hello.service"}))
	})

	It("is read before it is written: a higher token there ends it", func() {
		r := newReplay("21-put-other-options", "44-delete")
		tagged := unit.WithToken([]unit.Option{{Section: "Service", Name: "ExecStart", Value: "/a"}}, 9)
		r.answer("GET /fleet/v1/units/hello.service", 200,
			map[string]any{"name": "hello.service", "options": tagged, "desiredState": "launched"})
		Expect(r.cluster().Apply(ctx, definition("hello.service", "/bin/sleep 7200"), 8,
			false)).To(MatchError(runtime.ErrSuperseded))
		Expect(r.cluster().Remove(ctx, "hello.service", 8)).To(MatchError(runtime.ErrSuperseded))
		Expect(r.asked).To(HaveLen(2))
		Expect(r.cluster().Apply(ctx, definition("hello.service", "/bin/sleep 7200"), 9, false)).To(Succeed())
	})

	It("never gets what it would not check itself", func() {
		r := newReplay("07-put-new")
		d := definition("hello.service", "/a\nUser=root")
		Expect(r.cluster().Apply(ctx, d, 7, false)).To(MatchError(runtime.ErrRefused))
		Expect(r.cluster().Apply(ctx, messages.UnitDefinition{Name: "hello.service"}, 7,
			false)).To(MatchError(runtime.ErrRefused))
		Expect(r.asked).To(BeEmpty())
	})

	It("refuses in its own words", func() {
		err := newReplay("36-put-bad-name-suffix").cluster().Apply(ctx, definition("fresh.bogus", "/a"), 7, false)
		Expect(err).To(MatchError(runtime.ErrRefused))
		Expect(err).To(MatchError(ContainSubstring(`400 invalid unit type: "bogus"`)))
	})

	It("may have no such unit to remove", func() {
		Expect(newReplay("43-delete-unknown").cluster().Remove(ctx, "nope.service", 7)).To(Succeed())
	})

	It("counts as unreachable when it is broken or gone", func() {
		r := newReplay("78-poison-get")
		Expect(r.cluster().Apply(ctx, definition("poison.service", "/a"), 7, false)).To(MatchError(runtime.ErrUnreachable))
		c := r.cluster()
		r.Close()
		_, err := c.List(ctx, nil)
		Expect(err).To(MatchError(runtime.ErrUnreachable))
	})

	DescribeTable("is judged by hash and state",
		func(change func(u, s map[string]any), health roll.Health, wanted bool) {
			options := unit.WithToken([]unit.Option{{Section: "Service", Name: "ExecStart", Value: "/a"}}, 9)
			u := map[string]any{"name": "a@1.service", "options": options, "desiredState": "launched", "machineID": "m1"}
			// A real fleet hashes what it stores, the token included.
			s := map[string]any{"name": "a@1.service", "machineID": "m1", "systemdActiveState": "active"}
			s["hash"] = fleet.RawHash(options)
			change(u, s)
			r := newReplay()
			r.answer("GET /fleet/v1/units", 200, map[string]any{"units": []any{u}})
			states := []any{}
			if len(s) > 0 {
				states = append(states,
					map[string]any{"name": "a@1.service", "hash": "x", "machineID": "other", "systemdActiveState": "failed"}, s)
			}
			r.answer("GET /fleet/v1/state", 200, map[string]any{"states": states})
			all, err := r.cluster().List(ctx, []string{"a"})
			Expect(err).NotTo(HaveOccurred())
			Expect(all).To(HaveLen(1))
			Expect(all[0].Sighting.Health).To(Equal(health))
			if wanted {
				Expect(all[0].Sighting.Hash).To(Equal(unit.Hash(options)))
			} else {
				Expect(all[0].Sighting.Hash).NotTo(Equal(unit.Hash(options)))
			}
			Expect(all[0].Definition.Options).To(Equal([]messages.Option{{Section: "Service", Name: "ExecStart", Value: "/a"}}))
		},
		Entry("active", func(_, _ map[string]any) {}, roll.Healthy, true),
		Entry("active, hashed without the token as unitd does", func(_, s map[string]any) {
			s["hash"] = unit.Hash([]unit.Option{{Section: "Service", Name: "ExecStart", Value: "/a"}})
		}, roll.Healthy, true),
		Entry("active, but still the old one", func(_, s map[string]any) { s["hash"] = "0ld" }, roll.Healthy, false),
		Entry("activating", func(_, s map[string]any) { s["systemdActiveState"] = "activating" }, roll.Starting, true),
		Entry("failed", func(_, s map[string]any) { s["systemdActiveState"] = "failed" }, roll.Down, true),
		Entry("ended", func(_, s map[string]any) { s["systemdActiveState"] = "inactive" }, roll.Down, true),
		Entry("without a state yet", func(_, s map[string]any) { clear(s) }, roll.Starting, true),
		Entry("not launched", func(u, _ map[string]any) { u["desiredState"] = "loaded" }, roll.Down, true),
	)

	// shows lists one unit as a fleet of three machines shows it.
	shows := func(u map[string]any, states ...any) roll.Sighting {
		GinkgoHelper()
		r := newReplay()
		r.answer("GET /fleet/v1/units", 200, map[string]any{"units": []any{u}})
		r.answer("GET /fleet/v1/state", 200, map[string]any{"states": states})
		all, err := r.cluster().List(ctx, []string{"a"})
		Expect(err).NotTo(HaveOccurred())
		Expect(all).To(HaveLen(1))
		return all[0].Sighting
	}
	plain := []unit.Option{{Section: "Service", Name: "ExecStart", Value: "/a"}}
	everywhere := append(slices.Clone(plain), unit.Option{Section: "X-Fleet", Name: "Global", Value: "true"})
	state := func(machine, active, hash string) map[string]any {
		return map[string]any{"name": "a.service", "machineID": machine, "systemdActiveState": active, "hash": hash}
	}

	It("whose machine has changed is not judged by the old one's state", func() {
		moved := map[string]any{"name": "a.service", "options": plain, "desiredState": "launched", "machineID": "new"}
		Expect(shows(moved, state("dead", "active", unit.Hash(plain))).Health).To(Equal(roll.Starting))
		Expect(shows(moved, state("dead", "failed", unit.Hash(plain)),
			state("new", "active", unit.Hash(plain))).Health).To(Equal(roll.Healthy))
	})

	It("that cannot place a unit shows it as starting, not as healthy", func() {
		r := newReplay("61-get-no-machine", "62-state-no-machine")
		var nowhere map[string]any
		Expect(json.Unmarshal(r.bodies["GET /fleet/v1/units/nowhere.service"], &nowhere)).To(Succeed())
		nowhere["name"] = "a.service"
		Expect(shows(nowhere).Health).To(Equal(roll.Starting))
		Expect(shows(nowhere, state("gone", "active", "x")).Health).To(Equal(roll.Starting))
	})

	DescribeTable("has no place for a unit",
		func(sentence string, wanted []unit.Option, others ...any) {
			r := newReplay("03-machines")
			r.answer("GET /fleet/v1/units", 200, map[string]any{"units": others})
			options := append([]unit.Option{{Section: "Service", Name: "ExecStart", Value: "/a"}}, wanted...)
			d := messages.UnitDefinition{Name: "a@1.service"}
			for _, o := range options {
				d.Options = append(d.Options, messages.Option(o))
			}
			got, err := r.cluster().Unplaced(ctx, []messages.UnitDefinition{d})
			Expect(err).NotTo(HaveOccurred())
			if sentence == "" {
				Expect(got).To(BeEmpty())
				return
			}
			Expect(got).To(HavePrefix("a@1.service cannot be placed: it demands " + sentence))
			Expect(r.asked).To(Equal([]string{"GET /fleet/v1/machines", "GET /fleet/v1/units"}), "nothing is written")
		},
		Entry("that demands what a machine offers", "", demand("MachineMetadata", "role=control")),
		Entry("that demands what none offers: it is said what they offer",
			"MachineMetadata=role=moon. Machine b7403c4421ea4e91abba8d2935fdb817 offers rank=1, role=control. "+
				"Machine d75800bdd64949bb82ddbf7157b740ef offers rank=3, role=app. Machine ",
			demand("MachineMetadata", "role=moon")),
		Entry("of a machine that is not there", "MachineID=gone. Machine b7403c4421ea4e91abba8d2935fdb817",
			demand("MachineID", "gone")),
		Entry("whose peer runs nowhere", "MachineOf=b.service. Machine b7403c4421ea4e91abba8d2935fdb817",
			demand("MachineOf", "b.service"),
			other("b.service", "launched", "")),
		Entry("whose peer runs", "", demand("MachineOf", "b.service"), other("b.service", "launched", controlMachine)),
		Entry("whose peer is not to run", "MachineOf=b.service", demand("MachineOf", "b.service"),
			other("b.service", "inactive", controlMachine)),
		Entry("which a global unit excludes", "Conflicts=b.service. Machine b7403c4421ea4e91abba8d2935fdb817",
			demand("Conflicts", "b.service"),
			other("b.service", "launched", "", demand("Global", "true")...)),
		Entry("which a global unit of some machines excludes", "", demand("Conflicts", "b.service"),
			other("b.service", "launched", "",
				append(demand("Global", "true"), demand("MachineMetadata", "role=control")...)...)),
		Entry("which its own former definition excludes", "", demand("Conflicts", "a@*"),
			other("a@1.service", "launched", controlMachine, demand("Conflicts", "a@*")...)),
	)

	DescribeTable("runs a global unit on every machine, and the worst one counts",
		func(health roll.Health, wanted bool, second, hash string) {
			global := map[string]any{"name": "a.service", "options": everywhere, "desiredState": "launched"}
			if hash == "" {
				hash = unit.Hash(everywhere)
			}
			s := shows(global, state("m1", "active", unit.Hash(everywhere)), state("m2", second, hash),
				state("m3", "active", unit.Hash(everywhere)))
			Expect(s.Health).To(Equal(health))
			if wanted {
				Expect(s.Hash).To(Equal(unit.Hash(everywhere)))
			} else {
				Expect(s.Hash).NotTo(Equal(unit.Hash(everywhere)))
			}
			Expect(s.Spell).To(And(ContainSubstring("m1"), ContainSubstring("m2"), ContainSubstring("m3")))
		},
		Entry("all active", roll.Healthy, true, "active", ""),
		Entry("one is starting", roll.Starting, true, "activating", ""),
		Entry("one has failed", roll.Down, true, "failed", ""),
		Entry("one still runs the old definition", roll.Healthy, false, "active", "0ld"),
	)

	It("shows its global unit as recorded", func() {
		r := newReplay("58-state-global", "59-get-global")
		var global map[string]any
		var states struct{ States []any }
		Expect(json.Unmarshal(r.bodies["GET /fleet/v1/units/glob.service"], &global)).To(Succeed())
		Expect(json.Unmarshal(r.bodies["GET /fleet/v1/state?unitName=glob.service"], &states)).To(Succeed())
		Expect(states.States).To(HaveLen(3))
		r.answer("GET /fleet/v1/units", 200, map[string]any{"units": []any{global}})
		r.answer("GET /fleet/v1/state", 200, map[string]any{"states": states.States})
		all, err := r.cluster().List(ctx, []string{"glob"})
		Expect(err).NotTo(HaveOccurred())
		Expect(all[0].Sighting.Health).To(Equal(roll.Healthy))
		Expect(all[0].Sighting.Hash).To(Equal("0ba4a1c40fca8cd8a69aa87485dcd123b9faf7ce"))
	})

	It("shows a failing unit as recorded", func() {
		r := newReplay("51-state-failing", "52-get-failing")
		var failing map[string]any
		Expect(json.Unmarshal(r.bodies["GET /fleet/v1/units/failing.service"], &failing)).To(Succeed())
		r.answer("GET /fleet/v1/units", 200, map[string]any{"units": []any{failing}})
		r.answers["GET /fleet/v1/state"],
			r.bodies["GET /fleet/v1/state"] = r.answers["GET /fleet/v1/state?unitName=failing.service"],
			r.bodies["GET /fleet/v1/state?unitName=failing.service"]
		all, err := r.cluster().List(ctx, []string{"failing"})
		Expect(err).NotTo(HaveOccurred())
		Expect(all[0].Sighting.Health).To(Equal(roll.Down))
		Expect(all[0].Sighting.Hash).To(Equal(unit.Hash([]unit.Option{{Section: "Service", Name: "ExecStart",
			Value: "/bin/false"}})))
	})

	It("is not told of a mere token: to it that would be another definition, and a restart", func() {
		r := newReplay("08-get-unit", "20-put-same-options")
		Expect(r.cluster().Apply(ctx, definition("hello.service", "/bin/sleep 3600"), 7, false)).To(Succeed())
		Expect(r.sent).To(Equal(map[string]any{"desiredState": "launched"}))
	})

	It("restarts a unit only once no machine shows it running, and is sent no state but its own", func() {
		r := newReplay("08-get-unit", "19-put-desired-launched")
		get, states := "GET /fleet/v1/units/hello.service", "GET /fleet/v1/state?unitName=hello.service"
		var hello map[string]any
		Expect(json.Unmarshal(r.bodies[get], &hello)).To(Succeed())
		hello["currentState"] = "inactive"
		still := map[string]any{"name": "hello.service", "machineID": "m1", "systemdActiveState": "active", "hash": "x"}
		r.answer(get, 200, hello)
		r.answer(states, 200, map[string]any{"states": []any{still}})
		done := make(chan error, 1)
		c := r.cluster()
		go func() { done <- c.Apply(ctx, definition("hello.service", "/bin/sleep 3600"), 7, true) }()
		Eventually(r.looks(states)).Should(BeNumerically(">=", 2))
		Expect(r.desired()).To(Equal([]any{"inactive"}))
		Expect(done).NotTo(Receive())
		r.answer(states, 200, map[string]any{})
		Eventually(done).Should(Receive(BeNil()))
		Expect(r.desired()).To(Equal([]any{"inactive", "launched"}))
	})

	It("gives its machines and states in pages, too", func() {
		r := newReplay()
		r.answer("GET /fleet/v1/machines", 200, map[string]any{"nextPageToken": "ZAACAA==",
			"machines": []any{map[string]any{"id": "m1"}, map[string]any{"id": "m2"}}})
		r.answer("GET /fleet/v1/machines?nextPageToken=ZAACAA==", 200,
			map[string]any{"machines": []any{map[string]any{"id": "m3"}}})
		Expect(r.cluster().Machines(ctx)).To(HaveLen(3))
		r.answer("GET /fleet/v1/units", 200, map[string]any{"units": []any{map[string]any{"name": "a.service",
			"options": plain, "desiredState": "launched", "machineID": "m1"}}})
		r.answer("GET /fleet/v1/state", 200, map[string]any{"nextPageToken": "ZAACAA=="})
		r.answer("GET /fleet/v1/state?nextPageToken=ZAACAA==", 200,
			map[string]any{"states": []any{state("m1", "active", unit.Hash(plain))}})
		all, err := r.cluster().List(ctx, []string{"a"})
		Expect(err).NotTo(HaveOccurred())
		Expect(all[0].Sighting.Health).To(Equal(roll.Healthy))
	})

	It("without machines lists none", func() {
		r := newReplay()
		r.answer("GET /fleet/v1/machines", 200, map[string]any{})
		Expect(r.cluster().Machines(ctx)).To(BeEmpty())
	})

	It("that fails counts as not reached, and the error says why", func() {
		r := newReplay()
		r.answer("GET /fleet/v1/machines", 500, map[string]any{"error": map[string]any{
			"code": 500, "message": "this host cannot store the unit: no space left on device"}})
		_, err := r.cluster().Machines(ctx)
		Expect(err).To(MatchError(runtime.ErrUnreachable))
		Expect(err).To(MatchError(ContainSubstring("500 this host cannot store the unit: no space left on device")))
	})

	DescribeTable("has an endpoint that is refused",
		func(endpoint string) {
			_, err := fleet.New(endpoint, "")
			Expect(err).To(MatchError(runtime.ErrRefused))
			Expect(err.Error()).NotTo(ContainSubstring("s3cret"))
		},
		Entry("nothing", ""), Entry("another scheme", "ftp://x"), Entry("credentials", "http://u:s3cret@x"),
		Entry("a relative socket", "unix:run/x"),
	)
})
