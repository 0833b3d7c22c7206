//go:build systemd

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
)

var _ = Describe("A unit on systemd", Label("systemd"), func() {
	It("is a unit file of systemd's, whole and with everything that was put", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600", "NoNewPrivileges=yes", "User=nobody",
			"X-Fleet.MachineMetadata=role=app")
		s := u.becomes("x.service", "active/running")
		text, err := os.ReadFile(unitDir + "/x.service")
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).
			To(And(HavePrefix("# X-OpenAperture: written by unitd "), ContainSubstring("NoNewPrivileges=yes\n"),
				ContainSubstring("[X-Fleet]\nMachineMetadata=role=app\n")))
		Expect(strings.TrimSpace(systemctl("show", "-P", "MainPID", "x.service"))).To(Equal(strconv.Itoa(s.MainPID)))
		Expect(systemctl("show", "-P", "NoNewPrivileges", "x.service")).To(Equal("yes\n"))
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.MainPID))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(status)).To(MatchRegexp(`Uid:\s+65534`))
		Expect(filepath.Glob(unitDir + "/.unitd-*")).To(BeEmpty())
	})

	It("that was deleted leaves nothing", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		u.becomes("x.service", "active/running")
		Expect(u.do("DELETE", "/fleet/v1/units/x.service", "").status).To(Equal(204))
		Eventually(unitDir + "/x.service").WithTimeout(patience).ShouldNot(BeAnExistingFile())
		Eventually(func() string { return systemctl("show", "-P", "LoadState", "x.service") }).WithTimeout(patience).
			Should(Equal("not-found\n"))
		record := u.path("state/systemd/x.service.json")
		Eventually(record).WithTimeout(patience).ShouldNot(BeAnExistingFile())
	})

	It("shows nothing of a deleted one that had its name, however soon it follows", func() {
		u := startUnitd()
		record := u.path("state/systemd/x.service.json")
		for i := range 5 {
			u.put("x.service", "launched", "Type=oneshot", fmt.Sprintf("ExecStart=/bin/echo this is %d", i))
			u.becomes("x.service", "inactive/dead")
			Eventually(func() string { return u.logs("x.service") }).WithTimeout(patience).
				Should(ContainSubstring("\nthis is %d\n", i))
			Expect(strings.Count(u.logs("x.service"), "\nthis is ")).To(Equal(1))
			Expect(u.do("DELETE", "/fleet/v1/units/x.service", "").status).To(Equal(204))
			Eventually(record).WithTimeout(patience).ShouldNot(BeAnExistingFile())
		}
	})

	It("that was deleted leaves nothing if systemd was not told that its file is gone", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/false")
		u.becomes("x.service", "failed/failed")
		u.kill()
		records, err := filepath.Glob(u.path("state/units/*"))
		Expect(err).NotTo(HaveOccurred())
		for _, file := range append(records, unitDir+"/x.service") {
			Expect(os.Remove(file)).To(Succeed())
		}
		u.start()
		Eventually(u.path).WithArguments("state/systemd/x.service.json").WithTimeout(patience).ShouldNot(BeAnExistingFile())
		Expect(systemctl("show", "-P", "LoadState", "x.service")).To(Equal("not-found\n"))
	})

	It("of somebody else is never touched, wherever its file is", func() {
		u := startUnitd()
		foreign := "[Service]\nExecStart=/bin/sleep 7200\n"
		Expect(os.WriteFile(unitDir+"/foreign.service", []byte(foreign), 0o600)).To(Succeed()) // systemd has not read it
		for name, where := range map[string]string{
			"foreign.service":          unitDir + "/foreign.service",
			"systemd-journald.service": "/lib/systemd/system/systemd-journald.service",
			"getty@tty9.service":       "/lib/systemd/system/getty@.service",
		} {
			answer := u.do("PUT", "/fleet/v1/units/"+name, body("launched", "ExecStart=/bin/sleep 3600"))
			Expect(answer.status).To(Equal(409), name)
			Expect(answer.body).
				To(ContainSubstring("unit of this name exists on the host and was not written by unitd: " + where))
			Expect(u.do("GET", "/fleet/v1/units/"+name, "").status).To(Equal(404))
			Expect(u.do("DELETE", "/fleet/v1/units/"+name, "").status).To(Equal(404))
		}
		Expect(os.ReadFile(unitDir + "/foreign.service")).To(BeEquivalentTo(foreign))
		Expect(systemctl("show", "-P", "ActiveState", "systemd-journald.service")).To(Equal("active\n"))
	})

	It("that somebody replaced meanwhile is left to them", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		u.becomes("x.service", "active/running")
		u.put("x.service", "inactive")
		Eventually(func() string { return systemctl("show", "-P", "ActiveState", "x.service") }).WithTimeout(patience).
			Should(Equal("inactive\n"))
		foreign := "[Service]\nExecStart=/bin/sleep 7200\n"
		Expect(os.WriteFile(unitDir+"/x.service", []byte(foreign), 0o600)).To(Succeed())
		Expect(u.do("PUT", "/fleet/v1/units/x.service", body("launched")).status).To(Equal(409))
		Expect(u.do("DELETE", "/fleet/v1/units/x.service", "").status).To(Equal(204))
		Eventually(func() int { return u.do("GET", "/fleet/v1/units/x.service", "").status }).Should(Equal(404))
		Expect(os.ReadFile(unitDir + "/x.service")).To(BeEquivalentTo(foreign))
	})

	It("that is a template is kept, and systemd is not asked for it", func() {
		u := startUnitd()
		u.put("t@.service", "launched", "ExecStart=/bin/sleep 3600")
		u.put("t@1.service", "launched", "ExecStart=/bin/sleep 3600")
		u.becomes("t@1.service", "active/running")
		Expect(u.do("GET", "/fleet/v1/units/t@.service", "").body).To(ContainSubstring(`"desiredState":"launched"`))
		Expect(u.do("DELETE", "/fleet/v1/units/t@.service", "").status).To(Equal(204))
		Expect(string(u.session.Err.Contents())).NotTo(ContainSubstring("cannot be looked for"))
	})

	It("that an administrator stops stays down until it is put again", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600", "Restart=always")
		u.becomes("x.service", "active/running")
		systemctl("stop", "x.service")
		u.becomes("x.service", "inactive/dead")
		u.put("x.service", "launched", "ExecStart=/bin/sleep 7200")
		u.becomes("x.service", "active/running")
	})

	Context("that has failed and that an administrator starts", func() {
		// started returns the process that runs from then on.
		started := func(u *unitd) int {
			GinkgoHelper()
			u.put("x.service", "launched", `ExecStart=/bin/sh -c "[ -e `+u.path("ok")+` ] && exec sleep 3600"`)
			u.becomes("x.service", "failed/failed")
			Expect(os.WriteFile(u.path("ok"), nil, 0o600)).To(Succeed())
			systemctl("start", "x.service")
			pid, err := strconv.Atoi(strings.TrimSpace(systemctl("show", "-P", "MainPID", "x.service")))
			Expect(err).NotTo(HaveOccurred())
			return pid
		}

		It("is shown as it is, and followed", func() {
			u := startUnitd()
			pid := started(u)
			Expect(u.becomes("x.service", "active/running").MainPID).To(Equal(pid))
			systemctl("stop", "x.service")
			u.becomes("x.service", "inactive/dead")
		})

		It("is replaced if the note is of a definition that systemd has not started since", func() {
			u := startUnitd()
			u.put("x.service", "launched", `ExecStart=/bin/sh -c "[ -e `+u.path("ok")+` ] && exec sleep 3600"`)
			u.becomes("x.service", "failed/failed")
			u.kill()
			Expect(os.WriteFile(u.path("ok"), nil, 0o600)).To(Succeed())
			systemctl("start", "x.service")
			show := func(property string) string { return strings.TrimSpace(systemctl("show", "-P", property, "x.service")) }
			earlier, err := strconv.Atoi(show("MainPID"))
			Expect(err).NotTo(HaveOccurred())
			file, note := u.path("state/systemd/x.service.json"), map[string]any{}
			text, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			Expect(json.Unmarshal(text, &note)).To(Succeed())
			// As after a start from before the reload, and a kill before the order.
			note["before"], note["taken"] = show("InvocationID"), false
			text, err = json.Marshal(note)
			Expect(err).NotTo(HaveOccurred())
			Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
			u.start()
			Eventually(func() state { return u.state("x.service") }).WithTimeout(patience).
				Should(And(HaveField("Active", "active"), HaveField("MainPID", Not(BeElementOf(0, earlier)))))
			Expect(alive(earlier)).To(BeFalse())
		})

		DescribeTable("is replaced by what is put then", func(noticed bool) {
			u := startUnitd()
			failed := started(u)
			if noticed {
				u.becomes("x.service", "active/running")
			}
			u.put("x.service", "launched", "ExecStart=/bin/sleep 7200")
			Eventually(func() state { return u.state("x.service") }).WithTimeout(patience).
				Should(And(HaveField("Active", "active"), HaveField("MainPID", Not(BeElementOf(0, failed)))))
			Expect(alive(failed)).To(BeFalse())
			Eventually(commandLine).WithArguments(u.state("x.service").MainPID).WithTimeout(patience).
				Should(ContainSubstring("7200"))
		},
			Entry("at once", false),
			Entry("after unitd has seen it", true),
		)

		It("is stopped when it is to be inactive", func() {
			u := startUnitd()
			pid := started(u)
			u.put("x.service", "inactive")
			Eventually(alive).WithArguments(pid).WithTimeout(patience).Should(BeFalse())
		})

		It("is stopped when it is deleted, and leaves nothing", func() {
			u := startUnitd()
			pid := started(u)
			Expect(u.do("DELETE", "/fleet/v1/units/x.service", "").status).To(Equal(204))
			Eventually(u.path).WithArguments("state/systemd/x.service.json").WithTimeout(patience).ShouldNot(BeAnExistingFile())
			Expect(alive(pid)).To(BeFalse())
			Expect(unitDir + "/x.service").NotTo(BeAnExistingFile())
			u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
			u.becomes("x.service", "active/running")
		})
	})

	Context("that has failed and whose new definition is accepted", func() {
		const file = unitDir + "/x.service"
		read := func(name string) func() string {
			return func() string {
				text, _ := os.ReadFile(name)
				return string(text)
			}
		}

		// reached returns when unitd has come to a step of the start of what was put.
		DescribeTable("is started by the next unitd, wherever the one before was killed",
			func(reached func(u *unitd, earlierNote string)) {
				u := startUnitd()
				u.put("x.service", "launched", "ExecStart=/bin/false")
				u.becomes("x.service", "failed/failed")
				earlierNote := read(u.path("state/systemd/x.service.json"))()
				u.put("x.service", "launched", "ExecStart=/bin/sleep 7200")
				reached(u, earlierNote)
				u.restart()
				pid := u.becomes("x.service", "active/running").MainPID
				Eventually(commandLine).WithArguments(pid).WithTimeout(patience).Should(ContainSubstring("7200"))
				Expect(filepath.Glob(unitDir + "/.unitd-*")).To(BeEmpty())
				Expect(filepath.Glob(u.path("state/systemd/.unitd-*"))).To(BeEmpty())
			},
			Entry("before the unit file", func(*unitd, string) {}),
			Entry("after it", func(*unitd, string) {
				Eventually(read(file)).WithTimeout(patience).WithPolling(time.Millisecond).Should(ContainSubstring("7200"))
			}),
			Entry("after the reload", func(*unitd, string) {
				Eventually(func() string { return systemctl("show", "-P", "ExecStart", "x.service") }).WithTimeout(patience).
					WithPolling(time.Millisecond).Should(ContainSubstring("7200"))
			}),
			Entry("after the note", func(u *unitd, earlierNote string) {
				Eventually(read(u.path("state/systemd/x.service.json"))).WithTimeout(patience).WithPolling(time.Millisecond).
					ShouldNot(Equal(earlierNote))
			}),
		)
	})

	It("that somebody starts while it is stopped is stopped again", func() {
		u := startUnitd()
		u.put("x.service", "launched",
			`ExecStart=/bin/sh -c "trap 'while [ ! -e `+u.path("end")+` ]; do sleep 0.05; done; exit 0' TERM; `+
				`echo $$$$ > `+u.path("pid")+`; while :; do sleep 0.05; done"`)
		u.becomes("x.service", "active/running")
		pidIn(u.path("pid")) // the trap is set
		u.put("x.service", "loaded")
		u.becomes("x.service", "deactivating/stop-sigterm")
		systemctl("start", "--no-block", "x.service")
		Expect(os.WriteFile(u.path("end"), nil, 0o600)).To(Succeed())
		Eventually(func() string { return systemctl("show", "-P", "ActiveState", "x.service") }).WithTimeout(patience).
			Should(Equal("inactive\n"))
		u.becomes("x.service", "inactive/dead")
		Expect(u.processes()).To(BeEmpty())
	})

	It("is looked after again when D-Bus was gone", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		before := u.becomes("x.service", "active/running")
		systemctl("stop", "dbus.socket", "dbus.service")
		Eventually(func() string { return string(u.session.Err.Contents()) }).WithTimeout(patience).
			Should(ContainSubstring("connection to systemd is lost"))
		systemctl("start", "dbus.socket", "dbus.service")
		Eventually(func() string { return string(u.session.Err.Contents()) }).WithTimeout(patience).
			Should(ContainSubstring("connection to systemd is back"))
		Eventually(func() string { return systemctl("is-system-running") }).WithTimeout(patience).Should(Equal("running\n"))
		Expect(u.state("x.service")).To(Equal(before))
		u.put("x.service", "loaded")
		u.becomes("x.service", "inactive/dead")
		Expect(alive(before.MainPID)).To(BeFalse())
	})

	It("is started when D-Bus was gone in the middle of its start", func() {
		u := startUnitd()
		const generators = "/run/systemd/system-generators"
		gate, reached := u.path("gate"), u.path("reached")
		Expect(os.MkdirAll(generators, 0o700)).To(Succeed())
		DeferCleanup(os.RemoveAll, generators)
		Expect(os.WriteFile(gate, nil, 0o600)).To(Succeed())
		DeferCleanup(os.RemoveAll, gate) // systemd would wait for it
		program := "#!/bin/sh\n> " + reached + "\nwhile [ -e " + gate + " ]; do sleep 0.05; done\n"
		Expect(os.WriteFile(generators+"/gate", []byte(program), 0o700)).To(Succeed()) //nolint:gosec // it is run
		bus, err := strconv.Atoi(strings.TrimSpace(systemctl("show", "-P", "MainPID", "dbus.service")))
		Expect(err).NotTo(HaveOccurred())
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		Eventually(reached).WithTimeout(patience).Should(BeAnExistingFile()) // systemd reads the unit files
		Expect(syscall.Kill(bus, syscall.SIGKILL)).To(Succeed())
		Eventually(func() string { return string(u.session.Err.Contents()) }).WithTimeout(patience).
			Should(ContainSubstring("connection to systemd is lost"))
		Expect(os.Remove(gate)).To(Succeed())
		u.becomes("x.service", "active/running")
	})

	It("does not move to the other backend while it runs", func() {
		u := startUnitd()
		u.put("x.service", "launched", "ExecStart=/bin/sleep 3600")
		u.becomes("x.service", "active/running")
		u.session.Terminate().Wait(patience)
		other := launch("listen: 127.0.0.1:0\nstate_dir: " + u.path("state") + "\n")
		Eventually(other).WithTimeout(patience).Should(gexec.Exit(1))
		Expect(string(other.Err.Contents())).To(ContainSubstring("units of this state_dir run on backend systemd"))
		u.start()
		u.becomes("x.service", "active/running")
	})
})

// commandLine of a process is systemd's own until it has become the unit's program.
func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(text)
}
