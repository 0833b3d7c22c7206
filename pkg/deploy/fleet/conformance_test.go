package fleet_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"

	"github.com/openaperture/openaperture/pkg/deploy/fleet"
	"github.com/openaperture/openaperture/pkg/deploy/memory"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/previoustest"
	"github.com/openaperture/openaperture/pkg/roll"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// onUnitd starts a real unitd and returns the cluster behind its socket.
func onUnitd() runtime.Runtime { return on(unitd) }

// onPreviousUnitd does so with unitd of the previous release: executors are upgraded before it.
func onPreviousUnitd() runtime.Runtime { return on(previoustest.Service("unitd")) }

func on(unitd string) runtime.Runtime {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "fleet-spec-")
	Expect(err).NotTo(HaveOccurred())
	token := filepath.Join(dir, "token")
	Expect(os.WriteFile(token, []byte("t0ken\n"), 0o600)).To(Succeed())
	config := filepath.Join(dir, "unitd.yaml")
	socket := filepath.Join(dir, "s")
	text := fmt.Sprintf("listen: 127.0.0.1:0\nsocket: %s\nstate_dir: %s/state\ntoken_file: %s\n", socket, dir, token)
	Expect(os.WriteFile(config, []byte(text), 0o600)).To(Succeed())
	session, err := gexec.Start(exec.Command(unitd, "--config", config), GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	c, err := fleet.New("unix:"+socket, "t0ken")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		c.Close()
		Eventually(session.Terminate()).Should(gexec.Exit(0))
		out, err := exec.Command(unitd, "--config", config, "stop-all").CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		Expect(os.RemoveAll(dir)).To(Succeed())
	})
	Eventually(func() error { _, err := c.Machines(context.Background()); return err }).Should(Succeed())
	return c
}

var runtimes = map[string]func() runtime.Runtime{
	"memory":             func() runtime.Runtime { return memory.New() },
	"fleet before unitd": onUnitd,
	"fleet before the previous release's unitd (H5)": onPreviousUnitd,
}

// labels are the words of a runtime's name; labels may contain no parentheses.
func labels(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(" ()'", r) })
}

var _ = Describe("Every runtime", func() {
	for name, open := range runtimes {
		Context(name, Label(labels(name)...), func() {
			var rt runtime.Runtime
			ctx := context.Background()
			BeforeEach(func() { rt = open() })

			a1 := func(seconds int) messages.UnitDefinition {
				return definition("a@1.service", fmt.Sprintf("/bin/sleep %d", seconds))
			}
			only := func() runtime.Instance {
				all, err := rt.List(ctx, []string{"a"})
				Expect(err).NotTo(HaveOccurred())
				Expect(all).To(HaveLen(1))
				return all[0]
			}
			healthy := func(d messages.UnitDefinition) string {
				GinkgoHelper()
				Eventually(func() roll.Sighting { return only().Sighting }).Should(SatisfyAll(
					HaveField("Health", roll.Healthy), HaveField("Hash", memory.Hash(d))))
				return only().Sighting.Spell
			}

			It("has a machine and no instance", func() {
				Expect(rt.Machines(ctx)).To(HaveLen(1))
				Expect(rt.List(ctx, []string{"a"})).To(BeEmpty())
			})

			It("starts, replaces and removes an instance, and shows its definition without the token", func() {
				Expect(rt.Apply(ctx, a1(1000), 5, false)).To(Succeed())
				healthy(a1(1000))
				Expect(rt.Apply(ctx, a1(2000), 6, false)).To(Succeed())
				healthy(a1(2000))
				Expect(only().Definition).To(Equal(a1(2000)))
				Expect(rt.Apply(ctx, a1(3000), 5, false)).To(MatchError(runtime.ErrSuperseded))
				Expect(rt.Remove(ctx, "a@1.service", 6)).To(Succeed())
				Eventually(func() ([]runtime.Instance, error) { return rt.List(ctx, []string{"a"}) }).Should(BeEmpty())
				Expect(rt.Remove(ctx, "a@1.service", 6)).To(Succeed())
			})

			It("leaves an instance alone that has the definition, unless a restart is asked for", func() {
				Expect(rt.Apply(ctx, a1(1000), 5, false)).To(Succeed())
				spell := healthy(a1(1000))
				Expect(rt.Apply(ctx, a1(1000), 6, false)).To(Succeed())
				Consistently(func() string { return only().Sighting.Spell }, "100ms").Should(Equal(spell))
				Expect(rt.Apply(ctx, a1(1000), 7, true)).To(Succeed())
				Eventually(func() string { return healthy(a1(1000)) }).ShouldNot(Equal(spell))
			})

			It("starts an instance anew for another version, although the text is equal", func() {
				version := func(ref string) messages.UnitDefinition {
					d := a1(1000)
					d.Options = append(d.Options, messages.Option{Section: "X-OpenAperture", Name: "Version", Value: ref})
					return d
				}
				Expect(rt.Apply(ctx, version("v1"), 5, false)).To(Succeed())
				spell := healthy(version("v1"))
				Expect(only().Definition).To(Equal(version("v1")))
				Expect(rt.Apply(ctx, version("v1"), 6, false)).To(Succeed())
				Consistently(func() string { return only().Sighting.Spell }, "100ms").Should(Equal(spell))
				Expect(rt.Apply(ctx, version("v2"), 7, false)).To(Succeed())
				Eventually(func() string { return healthy(version("v2")) }).ShouldNot(Equal(spell))
			})

			It("says on which machine an instance runs, and how that is called", func() {
				machines, err := rt.Machines(ctx)
				Expect(err).NotTo(HaveOccurred())
				Expect(machines).To(HaveLen(1))
				Expect(machines[0].Host).NotTo(BeEmpty())
				Expect(rt.Apply(ctx, a1(1000), 5, false)).To(Succeed())
				healthy(a1(1000))
				Expect(only().Machines).To(Equal([]string{machines[0].ID}))
			})

			It("has a place for what demands nothing, and says what an instance that finds none demands", func() {
				demanding := a1(1000)
				demanding.Options = append(demanding.Options,
					messages.Option{Section: "X-Fleet", Name: "MachineMetadata", Value: "role=moon"})
				Expect(rt.Unplaced(ctx, []messages.UnitDefinition{a1(1000)})).To(BeEmpty())
				Expect(rt.Unplaced(ctx, []messages.UnitDefinition{demanding})).To(
					ContainSubstring("a@1.service cannot be placed: it demands MachineMetadata=role=moon. Machine "))
				bad := definition("a", "/bin/true")
				_, err := rt.Unplaced(ctx, []messages.UnitDefinition{bad})
				Expect(err).To(MatchError(runtime.ErrRefused))
				two := []messages.UnitDefinition{definition("a@1.service", "/bin/true"), definition("a@2.service", "/bin/true")}
				for i := range two {
					two[i].Options = append(two[i].Options,
						messages.Option{Section: "X-Fleet", Name: "Conflicts", Value: "a@*.service"})
				}
				Expect(rt.Unplaced(ctx, two)).To(ContainSubstring("machines that may run them: 1"))
			})

			It("shows an instance that no machine takes without machine, and not as healthy or ended (fault 21)", func() {
				Expect(rt.Apply(ctx, a1(1000), 5, false)).To(Succeed())
				healthy(a1(1000))
				demanding := a1(1000)
				demanding.Options = append(demanding.Options,
					messages.Option{Section: "X-Fleet", Name: "MachineMetadata", Value: "role=moon"})
				Expect(rt.Apply(ctx, demanding, 6, false)).To(Succeed())
				Eventually(only).Should(SatisfyAll(HaveField("Machines", BeEmpty()),
					HaveField("Sighting.Health", roll.Starting), HaveField("Sighting.Hash", memory.Hash(demanding))))
				Expect(rt.Apply(ctx, a1(1000), 7, false)).To(Succeed())
				healthy(a1(1000))
			})

			It("refuses a lower token, also after a removal", func() {
				Expect(rt.Apply(ctx, a1(1000), 5, false)).To(Succeed())
				Expect(rt.Apply(ctx, a1(2000), 4, false)).To(MatchError(runtime.ErrSuperseded))
				Expect(rt.Remove(ctx, "a@1.service", 4)).To(MatchError(runtime.ErrSuperseded))
				healthy(a1(1000))
				Expect(rt.Remove(ctx, "a@1.service", 6)).To(Succeed())
				Expect(rt.Apply(ctx, a1(2000), 5, false)).To(MatchError(runtime.ErrSuperseded))
			})

			It("fences an instance without restarting it", func() {
				Expect(rt.Apply(ctx, a1(1000), 5, false)).To(Succeed())
				spell := healthy(a1(1000))
				Expect(rt.Fence(ctx, "a@1.service", 4)).To(MatchError(runtime.ErrSuperseded))
				Expect(rt.Fence(ctx, "a@1.service", 7)).To(Succeed())
				Expect(rt.Apply(ctx, a1(2000), 6, false)).To(MatchError(runtime.ErrSuperseded))
				Consistently(func() string { return healthy(a1(1000)) }, "100ms").Should(Equal(spell))
				Expect(rt.Fence(ctx, "a@2.service", 7)).To(Succeed(), "there is none")
				Expect(rt.List(ctx, []string{"a"})).To(HaveLen(1))
			})

			It("matches names whole", func() {
				for _, n := range []string{"a@1.service", "b-a@1.service", "a.service"} {
					Expect(rt.Apply(ctx, definition(n, "/bin/sleep 1000"), 5, false)).To(Succeed())
				}
				all, err := rt.List(ctx, []string{"a"})
				Expect(err).NotTo(HaveOccurred())
				var names []string
				for _, i := range all {
					names = append(names, i.Sighting.Name)
				}
				Expect(names).To(Equal([]string{"a.service", "a@1.service"}))
			})

			It("lets a client wait for a change, and for no longer than it wants", func() {
				Expect(rt.Apply(ctx, a1(1000), 5, false)).To(Succeed())
				healthy(a1(1000))
				short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				for short.Err() == nil { // it may return early
					only()
					Expect(rt.Wait(short, "a@1.service")).To(Succeed())
				}
				changed := make(chan error, 1)
				only()
				go func() { changed <- rt.Wait(ctx, "a@1.service") }()
				Expect(rt.Apply(ctx, a1(2000), 6, false)).To(Succeed())
				Eventually(changed, "5s").Should(Receive(BeNil()))
			})
		})
	}

	It("of unitd tells the host name that stands behind %H, whatever its configuration says", func() {
		GinkgoT().Setenv("OPENAPERTURE_MACHINE_METADATA", `{"hostname": "another", "role": "app"}`)
		machines, err := onUnitd().Machines(context.Background())
		Expect(err).NotTo(HaveOccurred())
		Expect(machines).To(HaveLen(1))
		own, err := os.Hostname()
		Expect(err).NotTo(HaveOccurred())
		Expect([]string{machines[0].Host, machines[0].Metadata["role"]}).To(Equal([]string{own, "app"}))
	})

	It("of unitd gives the end of an instance's log", func() {
		rt := onUnitd()
		Expect(rt.Apply(context.Background(), definition("a@1.service", "/bin/sh -c 'echo no luck today; exit 3'"), 5,
			false)).To(Succeed())
		Eventually(func() string {
			text, err := rt.Logs(context.Background(), "a@1.service")
			Expect(err).NotTo(HaveOccurred())
			return strings.TrimSpace(text)
		}).Should(ContainSubstring("no luck today"))
	})
})
