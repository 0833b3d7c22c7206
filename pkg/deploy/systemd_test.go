//go:build systemd

package deploy_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/deploy"
	"github.com/openaperture/openaperture/pkg/deploy/fleet"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/systemdtest"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// helloOn is a template of deploy/local/hello. bad never gets ready: it does not know how to.
func helloOn(program string, bad bool) messages.UnitDefinition {
	options := []messages.Option{
		{Section: "Unit", Name: "Description", Value: "hello %i"},
		{Section: "Service", Name: "Type", Value: "notify"},
		{Section: "Service", Name: "ExecStart", Value: "/opt/" + filepath.Base(program)},
		{Section: "Service", Name: "Environment", Value: "OPENAPERTURE_LISTEN=127.0.0.1:2170%i"},
		{Section: "Service", Name: "User", Value: "nobody"},
		{Section: "Service", Name: "ProtectSystem", Value: "strict"},
		{Section: "Service", Name: "Restart", Value: "always"},
		{Section: "Service", Name: "TimeoutStartSec", Value: "2"},
	}
	if bad {
		options[2].Value = "/bin/sh -c 'echo no luck today; exec sleep 3600'"
	}
	return messages.UnitDefinition{Name: "hello@.service", Options: options}
}

var _ = Describe("An upgrade before unitd on systemd", Label("systemd"), func() {
	It("goes through three instances one at a time, and a bad version is put back", func() {
		box := systemdtest.Start()
		v1 := systemdtest.Build("github.com/openaperture/openaperture/deploy/local/hello", "v1")
		v2 := systemdtest.Build("github.com/openaperture/openaperture/deploy/local/hello", "v2")
		box.Copy(v1, "/opt")
		box.Copy(v2, "/opt")
		endpoint := box.Unitd(systemdtest.Build("github.com/openaperture/openaperture/services/unitd", "v1"), "t0ken")
		cluster, err := fleet.New(endpoint, "t0ken")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(cluster.Close)
		s := newSite()
		s.start(func(c *deploy.Config) {
			c.Open = func(messages.Cluster) (runtime.Runtime, error) { return cluster, nil }
		})
		rollOut := func(d messages.UnitDefinition) messages.Result {
			GinkgoHelper()
			order := s.put(func(o *messages.Order) {
				o.DeployableUnits, o.MinHealthyMS, o.HealthDeadlineMS = []messages.UnitDefinition{d}, 300, 6000
			})
			Eventually(func() int { return len(s.reported(order)) }).WithTimeout(60 * time.Second).ShouldNot(BeZero())
			Eventually(s.workFiles).WithTimeout(20 * time.Second).Should(BeEmpty())
			return s.result(order)
		}
		all := func() []runtime.Instance {
			GinkgoHelper()
			list, err := cluster.List(context.Background(), []string{"hello"})
			Expect(err).NotTo(HaveOccurred())
			return list
		}
		runs := func(program string) map[string]string {
			GinkgoHelper()
			spells := map[string]string{}
			for i, instance := range all() {
				Expect(instance.Sighting.Name).To(Equal(fmt.Sprintf("hello@%d.service", i+1)))
				Expect(instance.Sighting.Health).To(Equal(roll.Healthy))
				Expect(box.Do("systemctl", "show", "-P", "ExecStart", instance.Sighting.Name)).To(ContainSubstring("path=/opt/" +
					filepath.Base(program) + " "))
				Expect(box.Do("systemctl", "show", "-P", "User", instance.Sighting.Name)).To(Equal("nobody\n"))
				spells[instance.Sighting.Name] = instance.Sighting.Spell
			}
			Expect(spells).To(HaveLen(3))
			return spells
		}

		Expect(rollOut(helloOn(v1, false)).EventType).To(Equal(messages.EventMilestoneCompleted))
		first := runs(v1)
		r := rollOut(helloOn(v2, false))
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
		Expect(r.ReplacedUnits()).To(HaveLen(3))
		second := runs(v2)
		for name, spell := range second {
			Expect(spell).NotTo(Equal(first[name]))
		}

		box.Do("systemctl", "kill", "--signal=KILL", "--kill-who=main", "unitd.service") // the units run on
		Eventually(func() error {
			_, err := cluster.List(context.Background(),
				nil)
			return err
		}).WithTimeout(20 * time.Second).Should(Succeed())
		Eventually(func() (healthy int) {
			for _, instance := range all() {
				if instance.Sighting.Health == roll.Healthy {
					healthy++
				}
			}
			return healthy
		}).WithTimeout(20 * time.Second).Should(Equal(3))
		Expect(runs(v2)).To(Equal(second))

		r = rollOut(helloOn(v2, true))
		Expect(reasons(r)).To(Equal(failed(blame.DeployUnhealthy)), r.Message)
		Expect(r.Restored).To(BeTrue())
		Expect(strings.Split(r.Log, "\n")).To(ContainElement("no luck today"))
		third := runs(v2)
		Expect(third["hello@2.service"]).To(Equal(second["hello@2.service"]), "the others were not touched")
		Expect(third["hello@3.service"]).To(Equal(second["hello@3.service"]))
		Expect(third["hello@1.service"]).NotTo(Equal(second["hello@1.service"]))
	})
})
