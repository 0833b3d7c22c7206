//go:build compose

package compose_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/containers"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	next      = "v2" // the version that hello is upgraded to
	serviceMB = 25   // the most that an image of a service may have
	gitMB     = 50   // and one with git, ssh and their libraries
)

// ours are the services of docker-compose.yml that are OpenAperture's, with how many containers each has.
var ours = map[string]int{"manager-api": 1, "overseer": 2, "deployer": 1, "deployer-oa": 1}

func all(ctx context.Context) []containers.Container {
	GinkgoHelper()
	found, err := project.Containers(ctx)
	Expect(err).NotTo(HaveOccurred())
	return found
}

// the is the only container of a service.
func the(ctx context.Context, service string) containers.Container {
	GinkgoHelper()
	found := slices.DeleteFunc(all(ctx), func(c containers.Container) bool { return c.Service() != service })
	Expect(found).To(HaveLen(1))
	return found[0]
}

// wrong says what is not as it should be: every container is healthy, each of ours beats under its id since an instant
// and nobody else does, and a leader covers the exchange.
func wrong(ctx context.Context, since time.Time) error {
	if err := project.Healthy(ctx); err != nil {
		return err
	}
	found, err := project.Containers(ctx)
	if err != nil {
		return err
	}
	modules, err := stack.Modules(ctx, api)
	if err != nil {
		return err
	}
	beats := map[string]stack.Module{}
	for _, m := range modules {
		beats[m.Service+" "+m.Hostname] = m
	}
	counts := map[string]int{}
	for _, c := range found {
		if ours[c.Service()] == 0 {
			continue
		}
		counts[c.Service()]++
		m := beats[c.Service()+" "+c.Hostname()]
		beat, err := time.Parse(time.RFC1123, m.UpdatedAt)
		if err != nil || m.Status != messages.StatusActive || !beat.After(since) {
			return fmt.Errorf("%s: no active module %s since %s: %+v", c.Name, c.Hostname(), since, m)
		}
	}
	if len(beats) != 5 || fmt.Sprint(counts) != fmt.Sprint(ours) {
		return fmt.Errorf("containers %v, modules %v", counts, beats)
	}
	snapshot, err := api.Snapshot(ctx, host.ExchangeID())
	if err == nil && (snapshot.Lease == nil || !snapshot.Lease.Covering) {
		err = errors.New("no overseer covers the exchange")
	}
	return err
}

// requested makes ref the gold standard of hello and asks for the upgrade.
func requested(ctx context.Context, ref string) managerapi.Upgrade {
	GinkgoHelper()
	Expect(stack.SetGoldStandard(ctx, api, stack.Hello.Type, host.SourceRepo(stack.Hello), ref)).To(Succeed())
	c, err := stack.FindComponent(ctx, api, stack.Hello.Type)
	Expect(err).NotTo(HaveOccurred())
	u, err := api.RequestUpgrade(ctx, managerapi.UpgradeRequest{ComponentID: c.ID,
		Reason: CurrentSpecReport().LeafNodeText})
	Expect(err).NotTo(HaveOccurred())
	return u
}

// completed waits for the end of an upgrade, and then for nothing more: what is recorded runs.
func completed(ctx context.Context, u managerapi.Upgrade, ref string) []int {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		var err error
		u, err = api.Upgrade(ctx, u.ID)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(u.State.Open()).To(BeFalse(), "%+v", u)
	}).WithContext(ctx).WithTimeout(90 * time.Second).Should(Succeed())
	Expect(u.State).To(Equal(upgrade.Completed), "%+v", u.Verdict)
	Expect(see.Recorded(ctx, stack.Hello.Type, ref)).To(Succeed())
	pids, err := see.Runs(ctx, stack.Hello, ref)
	Expect(err).NotTo(HaveOccurred())
	return pids
}

var _ = Describe("docker-compose.yml", Ordered, func() {
	It("is up when its servers and manager-api are healthy", func(ctx SpecContext) {
		Expect(project.Healthy(ctx, "postgres", "rabbitmq", "manager-api")).To(Succeed())
		Expect(all(ctx)).To(HaveLen(7))
	})

	It("runs ours without rights, from small labelled images, and publishes on loopback alone", func(ctx SpecContext) {
		images, err := project.Images(ctx)
		Expect(err).NotTo(HaveOccurred())
		for _, c := range all(ctx) {
			for port, bindings := range c.NetworkSettings.Ports {
				for _, b := range bindings {
					Expect(b.HostIP).To(Equal("127.0.0.1"), "%s port %s", c.Name, port)
				}
			}
			Expect(c.Config.User).NotTo(Or(BeEmpty(), HavePrefix("root"), HavePrefix("0")), c.Name)
			if ours[c.Service()] == 0 {
				continue
			}
			Expect(c.HostConfig.ReadonlyRootfs).To(BeTrue(), c.Name)
			Expect(c.HostConfig.CapDrop).To(ConsistOf("ALL"), c.Name)
			image := images[c.Config.Image]
			_, tag, _ := strings.Cut(c.Config.Image, ":")
			Expect(image.Config.Labels).To(HaveKeyWithValue("org.opencontainers.image.version", tag))
			Expect(image.Config.Healthcheck.Test).
				To(Equal([]string{"CMD", "/app", "--config", "/etc/openaperture.yaml", "healthcheck", "ready"}))
			limit := serviceMB
			if strings.HasPrefix(c.Service(), "deployer") {
				limit = gitMB
			}
			Expect(image.Size).To(BeNumerically("<=", limit*1_000_000), c.Config.Image)
		}
	})

	It("becomes ready and beats under its container ids once its exchange is registered over REST", func(ctx SpecContext) {
		began := time.Now()
		_, port, found := strings.Cut(strings.TrimPrefix(host.UnitdURL(), "http://"), ":")
		Expect(found).To(BeTrue())
		Expect(host.RegisterOutside(ctx, api, "http://host.docker.internal:"+port, stack.Hello)).To(Succeed())
		Eventually(wrong).WithContext(ctx).WithArguments(began).WithTimeout(time.Minute).Should(Succeed())
		_, tag, _ := strings.Cut(the(ctx, "manager-api").Config.Image, ":")
		modules, err := stack.Modules(ctx, api)
		Expect(err).NotTo(HaveOccurred())
		Expect(modules).To(HaveEach(HaveField("SourceRepoGitRef", tag)))
		fmt.Fprintf(GinkgoWriter, "docker-compose up took %.1f s; all ready and beating %.1f s after the registration\n",
			took.Seconds(), time.Since(began).Seconds())
		Expect(project.Figures(ctx, GinkgoWriter)).To(Succeed())
	}, SpecTimeout(2*time.Minute))

	It("deploys a user's service to this host, which it reaches through the bridge with a token", func(ctx SpecContext) {
		completed(ctx, requested(ctx, stack.First), stack.First)
	}, SpecTimeout(2*time.Minute))

	for _, server := range []string{"rabbitmq", "postgres"} {
		It("recovers from the death of "+server, func(ctx SpecContext) {
			before := the(ctx, server)
			killed := time.Now()
			Expect(syscall.Kill(before.State.PID, syscall.SIGKILL)).To(Succeed())
			Eventually(func(g Gomega) {
				now := the(ctx, server)
				g.Expect(now.ID).To(Equal(before.ID))
				g.Expect(now.State.StartedAt).To(BeTemporally(">", killed))
				g.Expect(wrong(ctx, now.State.StartedAt)).To(Succeed())
			}).WithContext(ctx).WithTimeout(90 * time.Second).Should(Succeed())
			fmt.Fprintf(GinkgoWriter, "all healthy and beating %.1f s after the death of %s\n", time.Since(killed).Seconds(),
				server)
		}, SpecTimeout(2*time.Minute))
	}

	It("then upgrades the user's service", func(ctx SpecContext) {
		old, err := see.Runs(ctx, stack.Hello, stack.First)
		Expect(err).NotTo(HaveOccurred())
		Expect(host.BuildHello(ctx, next)).To(Succeed())
		Expect(completed(ctx, requested(ctx, next), next)).NotTo(ContainElements(old))
	}, SpecTimeout(3*time.Minute))

	It("goes without a trace but its images", func(ctx SpecContext) {
		images, err := project.Images(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(images).To(HaveLen(6))
		Expect(project.Left(ctx)).NotTo(BeEmpty())
		Expect(project.Down(ctx)).To(Succeed())
		Expect(project.Left(ctx)).To(BeEmpty())
		Expect(project.Forget()).To(Succeed())
		Expect(project.Generated + "/admin_token").NotTo(BeAnExistingFile())
		Expect(project.Init(ctx)).To(Succeed()) // for the clean-up, which removes what a failed spec has left
	}, SpecTimeout(2*time.Minute))
})
