package main_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("A unit", func() {
	It("is active when its process runs, and has no more environment than its own", func() {
		u := startUnitd()
		Expect(os.WriteFile(u.path("env"), []byte("FROM_FILE='a b'\n"), 0o600)).To(Succeed())
		u.put("web@1.service", "launched", `ExecStart=/bin/sh -c "env; echo args $0 $1; exec sleep 3600" %p-%i ${FROM_FILE}`,
			"EnvironmentFile="+u.path("env"), "EnvironmentFile=-/nowhere", `Environment=HOSTNAME=%H.web-1`, "MemoryMax=1G")
		s := u.becomes("web@1.service", "active/running")
		Expect(alive(s.MainPID)).To(BeTrue())
		since, err := time.Parse(time.RFC3339Nano, s.ActiveSince)
		Expect(err).NotTo(HaveOccurred())
		Expect(since).To(BeTemporally("~", time.Now(), time.Minute))
		host, err := os.Hostname()
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() string { return u.logs("web@1.service") }).Should(And(
			ContainSubstring("args web-1 a b\n"), ContainSubstring("PATH=/usr/local/sbin:"),
			ContainSubstring("HOSTNAME="+host+".web-1\n")))
		Expect(u.logs("web@1.service")).NotTo(ContainSubstring("hidden"))
		Expect(strings.Contains(string(u.session.Err.Contents()), "MemoryMax")).
			To(Equal(by(true, false)), "systemd honours it")
	})

	It("of Type=notify is active only after READY=1", func() {
		u := startUnitd()
		lines, open := u.gate("gate")
		u.put("n.service", "launched", lines...)
		u.becomes("n.service", "activating/start")
		Consistently(func() string { return u.state("n.service").Active }, "200ms").Should(Equal("activating"))
		open()
		s := u.becomes("n.service", "active/running")
		Expect(s.StatusText).To(Equal("open for business"))
		Expect(s.ActiveSince).NotTo(BeEmpty())
	})

	It("of Type=notify that does not become ready in time has failed, and is restarted by policy (D7)", func() {
		u := startUnitd()
		u.put("n.service", "launched", "Type=notify", "ExecStart=/bin/sleep 3600", "TimeoutStartSec=200ms")
		Expect(u.becomes("n.service", "failed/failed").Result).To(Equal("timeout"))
		u.put("n.service", "launched", "Type=notify", "ExecStart=/bin/sleep 3600", "TimeoutStartSec=200ms",
			"Restart=on-failure", "RestartSec=10ms")
		Eventually(func() int { return u.state("n.service").Restarts }).WithTimeout(patience).Should(BeNumerically(">=", 1))
	})

	It("of Type=notify that ends before READY=1 has failed, whatever its exit code", func() {
		u := startUnitd()
		u.put("n.service", "launched", "Type=notify", "ExecStart=/bin/true")
		Expect(u.becomes("n.service", "failed/failed").Result).To(ContainSubstring("protocol"))
	})

	It("of Type=notify hands over to the process that it names by MAINPID=, and may end at once", func() {
		u := startUnitd()
		u.put("n.service", "launched", u.role("starter", "Type=notify")...)
		first := u.becomes("n.service", "active/running").MainPID
		Consistently(func() string { return u.state("n.service").Active }, "300ms").Should(Equal("active"))
		Expect(u.state("n.service").MainPID).To(Equal(first))
		Expect(syscall.Kill(first, syscall.SIGKILL)).To(Succeed())
		Expect(u.becomes("n.service", "failed/failed").Result).To(ContainSubstring("signal"))

		u.put("n.service", "inactive")
		u.put("n.service", "launched", u.role("starter", "Type=notify")...)
		second := u.becomes("n.service", "active/running").MainPID
		u.put("n.service", "inactive")
		Eventually(func() bool { return alive(second) }).WithTimeout(patience).Should(BeFalse())
	})

	It("of Type=notify has its barriers answered (sd_notify), and no descriptor stays open", func() {
		u := startUnitd()
		u.put("n.service", "launched", u.role("barriers", "Type=notify", "TimeoutStartSec=3min")...)
		Expect(u.becomes("n.service", "active/running").StatusText).To(Equal("every barrier was answered"))
	})

	It("that crashes is restarted by its policy", func() {
		u := startUnitd()
		u.put("c.service", "launched", `ExecStart=/bin/sh -c "date +%%s%%N >> `+u.path("starts")+`; exit 3"`,
			"Restart=always", "RestartSec=50ms")
		Eventually(func() state { return u.state("c.service") }).WithTimeout(patience).WithPolling(10 * time.Millisecond).
			Should(And(HaveField("Restarts", BeNumerically(">=", 3)), HaveField("Sub", "auto-restart"),
				HaveField("Result", "exit-code 3")))
		text, err := os.ReadFile(u.path("starts"))
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.Count(string(text), "\n")).To(Equal(u.state("c.service").Restarts + 1))
		u.put("c.service", "inactive")
		Eventually(func() string { return u.state("c.service").Name }).WithTimeout(patience).Should(BeEmpty())
	})

	DescribeTable("that ends shows how, and stays down without a policy", func(what, result string, lines ...string) {
		u := startUnitd()
		u.put("x.service", "launched", lines...)
		Expect(u.becomes("x.service", what).Result).To(ContainSubstring(result))
	},
		Entry("exit code", "failed/failed", "exit-code 7", `ExecStart=/bin/sh -c "exit 7"`),
		Entry("signal", "failed/failed", "signal killed", `ExecStart=/bin/sh -c "kill -9 $$$$"`),
		Entry("a signal that asks to end", "inactive/dead", "", `ExecStart=/bin/sh -c "kill -TERM $$$$"`),
		Entry("a oneshot by such a signal", "failed/failed", "signal terminated", "Type=oneshot",
			`ExecStart=/bin/sh -c "kill -TERM $$$$"`),
		Entry("ExecStartPre by such a signal", "failed/failed", "signal hangup", `ExecStartPre=/bin/sh -c "kill -HUP $$$$"`,
			"ExecStart=/bin/sleep 3600"),
		Entry("success", "inactive/dead", "success", "ExecStart=/bin/true"),
		Entry("a failure that is ignored", "inactive/dead", by("exit-code 1", "success"), "ExecStart=-/bin/false"),
		Entry("no such program", "failed/failed", by("/nowhere/x: no such file", "program cannot be executed"),
			"ExecStart=/nowhere/x"),
		Entry("not in PATH", "failed/failed", by("program nosuchprogram is not in PATH", "program cannot be executed"),
			"ExecStart=nosuchprogram"),
		Entry("no such directory", "failed/failed",
			by("working directory /nowhere does not exist", "working directory does not exist"), "ExecStart=/bin/true",
			"WorkingDirectory=/nowhere"),
		Entry("no such user", "failed/failed", by("user nosuchuser is unknown", "user is unknown"), "ExecStart=/bin/true",
			"User=nosuchuser"),
		Entry("no such environment file", "failed/failed", by("EnvironmentFile", "resources"), "ExecStart=/bin/true",
			"EnvironmentFile=/nowhere"),
		Entry("ExecStartPre fails", "failed/failed", "exit-code 1", "ExecStartPre=/bin/false", "ExecStart=/bin/sleep 3600"),
		Entry("ExecStartPre may fail", "active/running", "", "ExecStartPre=-/bin/false", "ExecStartPre=-/nowhere",
			"ExecStart=/bin/sleep 3600"),
		Entry("ExecStop fails", "failed/failed", "exit-code 5", "ExecStart=/bin/true", `ExecStop=/bin/sh -c "exit 5"`,
			"ExecStop=/bin/true"),
		Entry("ExecStop of a oneshot by a signal that asks to end", "failed/failed", "signal terminated",
			"Type=oneshot", "ExecStart=/bin/true", `ExecStop=/bin/sh -c "kill -TERM $$$$"`),
		Entry("no such program to stop it", "failed/failed", by("/nowhere/x: no such file", "program cannot be executed"),
			"ExecStart=/bin/true", "ExecStop=/nowhere/x"),
		Entry("ExecStop may fail", "inactive/dead", "success", "ExecStart=/bin/true", "ExecStop=-/bin/false",
			"ExecStop=-/nowhere"),
		Entry("ExecStop may fail, not hang", "failed/failed", "timeout", "ExecStart=/bin/true", "ExecStop=-/bin/sleep 3600",
			"TimeoutStopSec=200ms"),
		Entry("a oneshot", "inactive/dead", "success", "Type=oneshot", "ExecStart=/bin/true", "ExecStart=/bin/true"),
		Entry("a oneshot that remains", "active/exited", "", "Type=oneshot", "ExecStart=/bin/true", "RemainAfterExit=yes"),
		Entry("a daemon that remains", "active/exited", "", "ExecStart=/bin/true", "RemainAfterExit=yes"),
		Entry("a daemon that would remain but fails", "failed/failed", "exit-code 7", `ExecStart=/bin/sh -c "exit 7"`,
			"RemainAfterExit=yes"),
	)

	It("runs as its user", func() {
		if os.Getuid() != 0 {
			Skip("only root may run units as somebody else")
		}
		u := startUnitd()
		u.put("x.service", "launched", "Type=oneshot", "ExecStart=/usr/bin/id -un", "User=nobody")
		u.becomes("x.service", "inactive/dead")
		Expect(u.logs("x.service")).To(ContainSubstring("nobody\n"))
	})

	It("runs a command with + as root, whoever its user is", func() {
		if os.Getuid() != 0 {
			Skip("only root may run units as somebody else")
		}
		u := startUnitd()
		u.put("x.service", "launched", "Type=oneshot", "ExecStartPre=+/usr/bin/id -un", "ExecStart=/usr/bin/id -un",
			"User=nobody")
		u.becomes("x.service", "inactive/dead")
		Expect(u.logs("x.service")).To(MatchRegexp(`(?ms)^root$.*^nobody$`))
	})

	DescribeTable("that ends by itself is followed by ExecStop if it had started and ended in order",
		func(what string, runs bool, lines ...string) {
			u := startUnitd()
			u.put("x.service", "launched", append(lines, `ExecStop=/bin/sh -c 'echo "stop of <$$MAINPID>"'`)...)
			u.becomes("x.service", what)
			Expect(strings.Contains(u.logs("x.service"), "stop of <>\n")).To(Equal(runs))
		},
		Entry("a daemon", "inactive/dead", true, "ExecStart=/bin/true"),
		Entry("a oneshot", "inactive/dead", true, "Type=oneshot", "ExecStart=/bin/true"),
		Entry("a daemon that failed", "failed/failed", false, "ExecStart=/bin/false"),
		Entry("one that never started", "failed/failed", false, "ExecStartPre=/bin/false", "ExecStart=/bin/true"),
	)

	It("that is stopped before it has started is sent SIGTERM at once", func() {
		u := startUnitd()
		u.put("x.service", "launched", "Type=notify", "ExecStart=/bin/sleep 3600", "ExecStop=/bin/echo too early")
		Eventually(func() int { return u.state("x.service").MainPID }).WithTimeout(patience).ShouldNot(BeZero())
		u.put("x.service", "loaded")
		u.becomes("x.service", "inactive/dead")
		Expect(u.logs("x.service")).NotTo(MatchRegexp("(?m)^too early$"))
	})

	It("has a mark in its log before all that a start writes", func() {
		u := startUnitd()
		u.put("x.service", "launched", `ExecStart=/bin/sh -c "echo v1 runs; exec sleep 3600"`)
		u.becomes("x.service", "active/running")
		Eventually(func() string { return u.logs("x.service") }).Should(ContainSubstring("v1 runs"))
		u.put("x.service", "launched", `ExecStartPre=/bin/sh -c "echo v2 fails; exit 1"`, "ExecStart=/bin/sleep 3600")
		u.becomes("x.service", "failed/failed")
		starts := strings.Split(u.logs("x.service"), "unitd: starting x.service\n")
		Expect(starts[len(starts)-1]).To(And(ContainSubstring("v2 fails\n"), Not(ContainSubstring("v1 runs"))))
	})

	It("that is replaced has ended before the new one starts, and keeps its hash until then", func() {
		u := startUnitd()
		exclusive := `exec 9>` + u.path("running") +
			`; trap 'sleep 0.2; exit 0' TERM; flock -n 9 || echo OVERLAP; echo locked; sleep 3600 & wait`
		u.put("x.service", "launched", `ExecStart=/bin/sh -c "`+exclusive+`"`)
		before := u.becomes("x.service", "active/running")
		Eventually(func() string { return u.logs("x.service") }).Should(ContainSubstring("locked"))
		u.put("x.service", "launched", `ExecStart=/bin/sh -c "`+exclusive+`"`, "Environment=VERSION=2")
		Eventually(func() state { return u.state("x.service") }).WithTimeout(patience).WithPolling(5 * time.Millisecond).
			Should(And(HaveField("Active", "active"), HaveField("Hash", Not(Equal(before.Hash))),
				HaveField("MainPID", Not(Equal(before.MainPID)))))
		Expect(alive(before.MainPID)).To(BeFalse())
		Expect(u.logs("x.service")).NotTo(ContainSubstring("OVERLAP"))
		Expect(u.state("x.service").Restarts).To(BeZero())
	})

	// Faults 19 and 20: a unit that does not mention its version renders the same for each of them.
	DescribeTable("whose definition differs only in [X-OpenAperture]",
		func(before, after []string, anew bool) {
			u := startUnitd()
			lines := func(extra []string) []string { return append([]string{"ExecStart=/bin/sleep 3600"}, extra...) }
			u.put("x.service", "launched", lines(before)...)
			first := u.becomes("x.service", "active/running")
			u.put("x.service", "launched", lines(after)...)
			for _, line := range after {
				_, value, _ := strings.Cut(line, "=")
				Expect(u.do("GET", "/fleet/v1/units/x.service", "").body).To(ContainSubstring(`"value":"` + value + `"`))
			}
			if !anew {
				Consistently(func() state { return u.state("x.service") }, "500ms").Should(Equal(first))
				u.restart()
				Expect(u.becomes("x.service", "active/running")).To(Equal(first))
				return
			}
			Eventually(func() state { return u.state("x.service") }).WithTimeout(patience).Should(And(
				HaveField("Active", "active"), HaveField("MainPID", Not(Equal(first.MainPID))),
				HaveField("Hash", Not(Equal(first.Hash)))))
			Expect(alive(first.MainPID)).To(BeFalse())
		},
		Entry("Version is replaced and started anew", []string{"X-OpenAperture.Version=v1"},
			[]string{"X-OpenAperture.Version=v2"}, true),
		Entry("Commit is replaced and started anew", []string{"X-OpenAperture.Version=v1", "X-OpenAperture.Commit=aaaa"},
			[]string{"X-OpenAperture.Version=v1", "X-OpenAperture.Commit=bbbb"}, true),
		Entry("Version, which the one before had not, is replaced and started anew", nil,
			[]string{"X-OpenAperture.Version=v1"}, true),
		Entry("Token runs on: the order is executed again (D14)",
			[]string{"X-OpenAperture.Version=v1", "X-OpenAperture.Token=41"},
			[]string{"X-OpenAperture.Version=v1", "X-OpenAperture.Token=42"}, false),
		Entry("Token, which the one before had not, runs on", []string{"X-OpenAperture.Version=v1"},
			[]string{"X-OpenAperture.Version=v1", "X-OpenAperture.Token=42"}, false),
	)

	It("is stopped by ExecStop first, then by SIGTERM", func() {
		u := startUnitd()
		u.put("x.service", "launched",
			`ExecStart=/bin/sh -c "trap 'echo got TERM >> `+u.path("order")+`; exit 0' TERM; `+
				`echo trapped; while :; do sleep 0.05; done"`,
			`ExecStop=/bin/sh -c "echo stopping $MAINPID >> `+u.path("order")+`"`)
		pid := u.becomes("x.service", "active/running").MainPID
		Eventually(func() string { return u.logs("x.service") }).Should(ContainSubstring("trapped"))
		u.put("x.service", "loaded")
		Expect(u.becomes("x.service", "inactive/dead").Result).To(Equal("success"))
		// The journal may swap two processes' lines.
		Expect(os.ReadFile(u.path("order"))).To(BeEquivalentTo(fmt.Sprintf("stopping %d\ngot TERM\n", pid)))
	})

	It("whose ExecStop fails when it is stopped has failed, with no more commands, and is not restarted", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600", `ExecStop=/bin/sh -c "exit 5"`,
			"ExecStop=/bin/touch "+u.path("second"), "Restart=always")
		pid := u.becomes("x.service", "active/running").MainPID
		u.put("x.service", "loaded")
		Expect(u.becomes("x.service", "failed/failed").Result).To(Equal("exit-code 5"))
		Expect(alive(pid)).To(BeFalse())
		Expect(u.path("second")).NotTo(BeAnExistingFile())
	})

	It("that ends in order but for its ExecStop is restarted as one that failed", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/true", "ExecStop=/bin/false", "Restart=on-failure", "RestartSec=10ms")
		Eventually(func() int { return u.state("x.service").Restarts }).WithTimeout(patience).Should(BeNumerically(">=", 2))
	})

	It("that ignores SIGTERM is killed after TimeoutStopSec, with all that it started", func() {
		u := startUnitd()
		u.put("x.service", "launched",
			`ExecStart=/bin/sh -c "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$$$ > `+u.path("child")+
				`; while :; do sleep 1; done' & while :; do sleep 1; done"`,
			"TimeoutStopSec=300ms")
		pid, child := u.becomes("x.service", "active/running").MainPID, pidIn(u.path("child"))
		Expect(alive(child)).To(BeTrue())
		u.put("x.service", "loaded")
		u.becomes("x.service", "deactivating/stop-sigterm")
		Expect(u.becomes("x.service", "failed/failed").Result).To(Equal("timeout"))
		Expect([]bool{alive(pid), alive(child)}).To(Equal([]bool{false, false}))
	})

	It("leaves no daemon behind when its main process ends", func() {
		u := startUnitd()
		u.put("x.service", "launched", `ExecStart=/bin/sh -c "setsid sleep 3600 & echo $! > `+u.path("child")+`; exit 0"`)
		child := pidIn(u.path("child"))
		u.becomes("x.service", "inactive/dead")
		Expect(alive(child)).To(BeFalse())
	})

	It("of KillMode=process that writes much keeps the end of it", Label("direct"), func() {
		u := startUnitd()
		Expect(syscall.Mkfifo(u.path("fifo"), 0o600)).To(Succeed())
		fill := 4<<20 - 1<<10 // the next write makes the file full
		u.put("x.service", "launched",
			fmt.Sprintf(`ExecStart=/bin/sh -c "yes much | head -c %d; cat %s; cat %[2]s; exec sleep 3600"`, fill,
				u.path("fifo")), "KillMode=process")
		Expect(os.WriteFile(u.path("fifo"), []byte(strings.Repeat("much\n", 300)+"before\n"), 0)).To(Succeed())
		current := u.path("state/logs/x.service/current.log")
		Eventually(os.ReadFile).WithArguments(current).WithTimeout(patience).Should(BeEmpty())
		Expect(os.WriteFile(u.path("fifo"), []byte("after\n"), 0)).To(Succeed())
		Eventually(func() string { return u.logs("x.service") }).WithTimeout(patience).
			Should(ContainSubstring("much\nbefore\nafter\n"))
		Expect(os.ReadFile(current)).To(BeEquivalentTo("after\n"))
	})

	It("of KillMode=process loses its main process only, and the others go on writing", func() {
		u := startUnitd()
		Expect(syscall.Mkfifo(u.path("fifo"), 0o600)).To(Succeed())
		u.put("x.service", "launched",
			`ExecStart=/bin/sh -c "sh -c 'echo $$$$ > `+u.path("child")+`; cat `+u.path("fifo")+` && exec sleep 3600' & wait"`,
			"KillMode=process")
		pid, child := u.becomes("x.service", "active/running").MainPID, pidIn(u.path("child"))
		u.put("x.service", "loaded")
		u.becomes("x.service", "inactive/dead")
		Expect(os.WriteFile(u.path("fifo"), []byte("still here\n"), 0)).To(Succeed())
		Eventually(func() string { return u.logs("x.service") }).WithTimeout(patience).
			Should(ContainSubstring("still here\n"))
		Eventually(func() []byte { text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child)); return text }).
			WithTimeout(patience).Should(HavePrefix("sleep"))
		Expect([]bool{alive(pid), alive(child)}).To(Equal([]bool{false, true}))
		process, err := os.FindProcess(child)
		Expect(err).NotTo(HaveOccurred())
		Expect(process.Kill()).To(Succeed())
	})
})
