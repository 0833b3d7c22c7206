package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("unitd that is killed", func() {
	It("takes over what runs without touching it", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		before := u.becomes("x.service", "active/running")
		u.restart()
		after := u.becomes("x.service", "active/running")
		Expect(after).To(Equal(before))
		u.put("x.service", "loaded")
		u.becomes("x.service", "inactive/dead")
		Expect(alive(before.MainPID)).To(BeFalse())
	})

	It("by SIGTERM leaves its units running (H1)", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		before := u.becomes("x.service", "active/running")
		u.session.Terminate().Wait(patience)
		Expect(u.session.ExitCode()).To(Equal(0))
		Expect(alive(before.MainPID)).To(BeTrue())
		u.start()
		Expect(u.becomes("x.service", "active/running")).To(Equal(before))
	})

	It("sees a READY=1 that came meanwhile, and one that comes later", func() {
		u := startUnitd()
		lines, openFirst := u.gate("first")
		u.put("first.service", "launched", lines...)
		lines, openSecond := u.gate("second")
		u.put("second.service", "launched", lines...)
		started := func(name string) int {
			Eventually(func() int { return u.state(name).MainPID }).WithTimeout(patience).ShouldNot(BeZero())
			return u.state(name).MainPID
		}
		pids := []int{started("first.service"), started("second.service")}
		u.kill()
		openFirst()
		u.start()
		u.becomes("first.service", "active/running")
		u.becomes("second.service", "activating/start")
		openSecond()
		u.becomes("second.service", "active/running")
		Expect([]int{u.state("first.service").MainPID, u.state("second.service").MainPID}).To(Equal(pids))
	})

	It("learns how a unit ended meanwhile, and applies its policy", func() {
		u := startUnitd()
		u.put("once.service", "launched", "ExecStart=/bin/sleep 3600")
		u.put("again.service", "launched", "ExecStart=/bin/sleep 3600", "Restart=always", "RestartSec=10ms")
		once := u.becomes("once.service", "active/running").MainPID
		again := u.becomes("again.service", "active/running").MainPID
		shims := []int{shim(once), shim(again)}
		u.kill()
		for _, pid := range []int{once, again} {
			Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
		}
		for _, pid := range by(shims, []int{once, again}) {
			Eventually(alive).WithArguments(pid).WithTimeout(patience).Should(BeFalse())
		}
		u.start()
		Expect(u.becomes("once.service", "failed/failed").Result).To(Equal("signal killed"))
		s := u.becomes("again.service", "active/running")
		Expect(s.Restarts).To(Equal(1))
		Expect(s.MainPID).NotTo(Equal(again))
	})

	It("remembers desired states, tokens and its machine", func() {
		u := startUnitd()
		machine := u.do("GET", "/fleet/v1/machines", "").body
		u.put("a.service", "launched", "ExecStart=/bin/sleep 3600")
		u.put("b.service", "loaded", "ExecStart=/bin/sleep 3600")
		u.put("c.service", "inactive", "ExecStart=/bin/sleep 3600")
		answer, err := u.request("PUT", "/fleet/v1/units/d.service", body("loaded", "ExecStart=/bin/true"), "9")
		Expect(err).NotTo(HaveOccurred())
		Expect(answer.status).To(Equal(201))
		u.becomes("a.service", "active/running")
		units := u.do("GET", "/fleet/v1/units", "").body
		u.restart()
		u.becomes("a.service", "active/running")
		Expect(u.do("GET", "/fleet/v1/units", "").body).To(Equal(units))
		Expect(u.do("GET", "/fleet/v1/machines", "").body).To(Equal(machine))
		answer, err = u.request("DELETE", "/fleet/v1/units/d.service", "", "8")
		Expect(err).NotTo(HaveOccurred())
		Expect(answer.status).To(Equal(409))
	})

	It("starts what it had accepted just before (D19)", func() {
		u := startUnitd()
		for round := range 6 {
			name := fmt.Sprintf("x%d.service", round)
			u.put(name, "launched", "ExecStart=/bin/sleep 3600")
			u.restart()
			u.becomes(name, "active/running")
		}
	})

	It("stops a unit that was deleted just before", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		pid := u.becomes("x.service", "active/running").MainPID
		Expect(u.do("DELETE", "/fleet/v1/units/x.service", "").status).To(Equal(204))
		u.restart()
		Eventually(alive).WithArguments(pid).WithTimeout(patience).Should(BeFalse())
		Eventually(func() string { return u.state("x.service").Name }).WithTimeout(patience).Should(BeEmpty())
	})

	It("at any moment never leaves two copies or none (H2)", func() {
		u := startUnitd()
		// The lock goes with the last process that holds its descriptor, whenever and however they end.
		exclusive := `exec 9>` + u.path("running") + `; flock -n 9 || echo OVERLAP; sleep 3600; true`
		for round := range 8 {
			put := make(chan error, 1)
			go func() {
				_, err := u.request("PUT", "/fleet/v1/units/x.service",
					body("launched", `ExecStart=/bin/sh -c "`+exclusive+`"`, "Environment=UNITD_SPEC="+u.dir,
						fmt.Sprintf("Environment=ROUND=%d", round)), "")
				put <- err
			}()
			<-time.After(time.Duration(rand.IntN(30)) * time.Millisecond) // from before the request to after the start
			u.session.Kill()
			Eventually(put).WithTimeout(patience).Should(Receive())
			u.session.Wait(patience)
			u.start()
		}
		u.put("x.service", "launched", `ExecStart=/bin/sh -c "`+exclusive+`"`, "Environment=ROUND=last")
		Eventually(func() string { return u.do("GET", "/fleet/v1/units/x.service", "").body }).
			Should(ContainSubstring("ROUND=last"))
		// A shim (direct), sh and sleep.
		Eventually(func() int { return len(u.processes()) }).WithTimeout(30 * time.Second).Should(Equal(by(3, 2)))
		u.becomes("x.service", "active/running")
		Expect(u.logs("x.service")).NotTo(ContainSubstring("OVERLAP"))
	})
})

var _ = Describe("A shim that is killed", Label("direct"), func() {
	// unit forks a child that leaves its session; both write their pids.
	unit := func(u *unitd) []string {
		return []string{`ExecStart=/bin/sh -c "setsid sh -c 'echo $$$$ > ` + u.path("child") +
			`; exec sleep 3600' & echo $$$$ > ` + u.path("main") + `; wait"`,
			"Restart=on-failure", "RestartSec=10ms"}
	}

	It("takes its processes with it, and the unit is restarted once", func() {
		u := startUnitd()
		u.put("x.service", "launched", unit(u)...)
		main, child := u.becomes("x.service", "active/running").MainPID, pidIn(u.path("child"))
		Expect(syscall.Kill(shim(main), syscall.SIGKILL)).To(Succeed())
		Eventually(func() state { return u.state("x.service") }).WithTimeout(patience).
			Should(And(HaveField("Active", "active"), HaveField("Restarts", 1), HaveField("Result", "shim killed")))
		Expect([]bool{alive(main), alive(child)}).To(Equal([]bool{false, false}))
		Eventually(u.processes).WithTimeout(patience).Should(HaveLen(3)) // shim, sh, sleep
	})

	It("while unitd is dead too is cleaned up by the next one, zombies or not", func() {
		u := startUnitd()
		u.put("x.service", "launched", unit(u)...)
		main, child := u.becomes("x.service", "active/running").MainPID, pidIn(u.path("child"))
		parent := shim(main)
		u.kill()
		Expect(syscall.Kill(parent, syscall.SIGKILL)).To(Succeed())
		Eventually(alive).WithArguments(parent).Should(BeFalse())
		u.start()
		s := u.becomes("x.service", "active/running")
		Expect(s.MainPID).NotTo(Equal(main))
		Expect([]bool{alive(main), alive(child)}).To(Equal([]bool{false, false}))
		Eventually(u.processes).WithTimeout(patience).Should(HaveLen(3))
	})

	It("by SIGTERM stops its unit, which is started again", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		main := u.becomes("x.service", "active/running").MainPID
		Expect(syscall.Kill(shim(main), syscall.SIGTERM)).To(Succeed())
		Eventually(func() state { return u.state("x.service") }).WithTimeout(patience).
			Should(And(HaveField("Active", "active"), HaveField("MainPID", Not(Equal(main)))))
		Expect(alive(main)).To(BeFalse())
	})
})

var _ = Describe("stop-all", func() {
	It("stops every unit and keeps what is desired", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600", "Restart=always")
		u.put("y.service", "launched", "ExecStart=/bin/sleep 3600")
		before := u.becomes("x.service", "active/running").MainPID
		u.becomes("y.service", "active/running")
		u.session.Terminate().Wait(patience)
		u.stopAll()
		Expect(u.processes()).To(BeEmpty())
		u.start()
		Expect(u.becomes("x.service", "active/running").MainPID).NotTo(Equal(before))
		u.becomes("y.service", "active/running")
	})

	It("can forget what is desired", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		u.becomes("x.service", "active/running")
		u.kill()
		u.stopAll("forget")
		u.start()
		Expect(u.do("GET", "/fleet/v1/units/x.service", "").body).To(ContainSubstring(`"desiredState":"inactive"`))
		Expect(u.processes()).To(BeEmpty())
		Expect(os.ReadDir(u.path(by("state/run", "state/systemd")))).NotTo(BeNil())
	})
})
