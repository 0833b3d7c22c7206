package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// smallDisk makes a state directory that is a file system of 1 MiB.
func smallDisk(stateDir string) {
	GinkgoHelper()
	if os.Getuid() != 0 {
		Skip("only root may mount a file system")
	}
	Expect(os.Mkdir(stateDir, 0o700)).To(Succeed())
	Expect(syscall.Mount("none", stateDir, "tmpfs", 0, "size=1m")).To(Succeed())
}

// fill takes all space of a directory's file system, and returns what frees it.
func fill(dir string) func() {
	GinkgoHelper()
	filler := filepath.Join(dir, "filler")
	file, err := os.Create(filler)
	Expect(err).NotTo(HaveOccurred())
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	Expect(errors.Is(err, syscall.ENOSPC)).To(BeTrue(), fmt.Sprint(err))
	Expect(file.Close()).To(Succeed())
	return func() { Expect(os.Remove(filler)).To(Succeed()) }
}

// readOnly makes a directory read-only, also for root, and returns what undoes it. No file in it may be open for
// writing.
func readOnly(dir string) func() {
	GinkgoHelper()
	Expect(syscall.Mount(dir, dir, "", syscall.MS_BIND, "")).To(Succeed())
	Expect(syscall.Mount("none", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, "")).To(Succeed())
	return func() { Expect(syscall.Unmount(dir, syscall.MNT_DETACH)).To(Succeed()) }
}

// readOnlyUnits does so with the directory of unitd's records.
func readOnlyUnits(stateDir string) func() {
	GinkgoHelper()
	return readOnly(filepath.Join(stateDir, "units"))
}

var _ = Describe("A host that can store nothing (D17)", func() {
	old, other := []string{"ExecStart=/bin/sleep 3600"}, []string{"ExecStart=/bin/sleep 7200"}
	refused := func(u *unitd, why string) {
		GinkgoHelper()
		for name, lines := range map[string][]string{"x.service": other, "new.service": old} {
			answer := u.do("PUT", "/fleet/v1/units/"+name, body("launched", lines...))
			Expect(answer.status).To(Equal(500))
			Expect(answer.body).To(And(ContainSubstring("this host cannot store the unit: "), ContainSubstring(why)))
		}
	}

	DescribeTable("refuses a change, leaves what runs alone, also as a new unitd, and takes the change later",
		func(obstacle func(string) func(), why string) {
			u := startUnitdOn(smallDisk)
			u.put("x.service", "launched", old...)
			before := u.becomes("x.service", "active/running")
			units := u.do("GET", "/fleet/v1/units", "").body
			remove := obstacle(u.path("state"))
			DeferCleanup(func() {
				if remove != nil {
					remove()
				}
			})
			refused(u, why)
			answer, err := u.request("DELETE", "/fleet/v1/units/x.service", "", "7")
			Expect(err).NotTo(HaveOccurred())
			Expect(answer.status).To(Equal(500))
			Expect(u.do("GET", "/fleet/v1/units", "").body).To(Equal(units))
			Expect(u.state("x.service")).To(Equal(before))
			u.restart()
			Expect(u.becomes("x.service", "active/running")).To(Equal(before))
			Expect(u.do("GET", "/fleet/v1/units", "").body).To(Equal(units))
			remove()
			remove = nil
			Expect(filepath.Glob(u.path("state/units/*.new"))).To(BeEmpty())
			u.put("x.service", "launched", other...)
			Eventually(func() state { return u.state("x.service") }).WithTimeout(patience).
				Should(And(HaveField("Active", "active"), HaveField("MainPID", Not(Equal(before.MainPID)))))
		},
		Entry("its disk is full", fill, "no space left on device"),
		Entry("the directory of its records is read-only", readOnlyUnits, "read-only file system"),
	)

	if backend == "systemd" { // only systemd has unit files
		It("neither stops what runs nor hinders the way back if unit files cannot be written", Label("systemd"), func() {
			u := startUnitd()
			u.put("x.service", "launched", old...)
			before := u.becomes("x.service", "active/running")
			DeferCleanup(readOnly(unitDir))
			refused(u, "read-only file system")
			Expect(u.state("x.service")).To(Equal(before))
			u.put("x.service", "loaded")
			u.becomes("x.service", "inactive/dead")
			u.put("x.service", "launched", old...) // its file is there
			u.becomes("x.service", "active/running")
		})
	}
})

var _ = Describe("A host that has lost its power (D19)", func() {
	// edit changes a file of JSON that unitd keeps.
	edit := func(file string, change func(map[string]any)) {
		GinkgoHelper()
		text, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		var content map[string]any
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		Expect(decoder.Decode(&content)).To(Succeed())
		change(content)
		text, err = json.Marshal(content)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	}

	It("starts what ran, and what had been accepted and not yet started; what had ended in order stays down", func() {
		u := startUnitd()
		u.put("ran.service", "launched", "ExecStart=/bin/sleep 3600")
		u.put("accepted.service", "inactive", "ExecStart=/bin/sleep 3600")
		u.put("stopped.service", "loaded", "ExecStart=/bin/sleep 3600")
		ran := u.becomes("ran.service", "active/running").MainPID
		kept := func(unit string) string {
			return by(u.path("state/run/"+unit+"/activation.json"), u.path("state/systemd/"+unit+".json"))
		}
		u.kill()
		powerOff(u, ran)
		edit(kept("ran.service"), func(note map[string]any) { note[by("BootID", "boot_id")] = "of the boot before" })
		edit(u.path("state/units/accepted.service.json"), func(record map[string]any) {
			record["desired_state"], record["generation"] = "launched", "written just before"
		})
		u.start()
		Expect(u.becomes("ran.service", "active/running").MainPID).NotTo(Equal(ran))
		Expect(u.state("ran.service").Restarts).To(BeZero())
		u.becomes("accepted.service", "active/running")
		u.becomes("stopped.service", "inactive/dead")
	})
})

// powerOff ends a running unit without anybody noticing, and removes what a reboot removes.
func powerOff(u *unitd, pid int) {
	GinkgoHelper()
	if backend == "systemd" {
		files, err := filepath.Glob(unitDir + "/*.service")
		Expect(err).NotTo(HaveOccurred())
		for _, file := range files {
			systemctl("stop", filepath.Base(file))
		}
		removeUnitFiles()
		return
	}
	for _, process := range []int{shim(pid), pid} {
		Expect(syscall.Kill(process, syscall.SIGKILL)).To(Or(Succeed(), MatchError(syscall.ESRCH)))
		Eventually(alive).WithArguments(process).WithTimeout(patience).Should(BeFalse())
	}
	Expect(u.processes()).To(BeEmpty())
}
