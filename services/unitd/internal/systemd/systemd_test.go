package systemd_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/godbus/dbus/v5"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
	"github.com/openaperture/openaperture/services/unitd/internal/systemd"
)

var _ = Describe("A unit's end", func() {
	DescribeTable("is told as the other backend tells it",
		func(p map[string]any, result service.Result, detail string) {
			exit := systemd.Ended(p).Exit
			Expect(exit.Result).To(Equal(result))
			Expect(exit.Detail).To(Equal(detail))
			Expect(exit.Final).To(BeTrue(), "Restart= is systemd's")
			Expect(exit.At.IsZero()).To(BeFalse())
		},
		Entry("unloaded", map[string]any{}, service.ResultSuccess, "success"),
		Entry("in order", map[string]any{"LoadState": "loaded", "Result": "success"}, service.ResultSuccess, "success"),
		Entry("an exit code", map[string]any{"Result": "exit-code", "ExecMainCode": int32(1), "ExecMainStatus": int32(7)},
			service.ResultExitCode, "exit-code 7"),
		Entry("no program", map[string]any{"Result": "exit-code", "ExecMainCode": int32(1), "ExecMainStatus": int32(203)},
			service.ResultExitCode, "exit-code 203: program cannot be executed"),
		Entry("a signal", map[string]any{"Result": "signal", "ExecMainCode": int32(2), "ExecMainStatus": int32(9)},
			service.ResultSignal, "signal killed"),
		Entry("SIGTERM, asked for",
			map[string]any{"Result": "success", "ExecMainCode": int32(2), "ExecMainStatus": int32(15)}, service.ResultSuccess,
			"success"),
		Entry("the command before it", map[string]any{"Result": "exit-code", "ExecStartPre": [][]any{
			{"/bin/false", []string{"/bin/false"}, false, uint64(1), uint64(1), uint64(2), uint64(2), uint32(9), int32(1),
				int32(3)}}},
			service.ResultExitCode, "exit-code 3"),
		Entry("the command after it",
			map[string]any{"Result": "exit-code", "ExecMainCode": int32(2), "ExecMainStatus": int32(15), "ExecStop": [][]any{
				{"/bin/false", []string{"/bin/false"}, false, uint64(1), uint64(1), uint64(2), uint64(2), uint32(9), int32(1),
					int32(3)}}},
			service.ResultExitCode, "exit-code 3"),
		Entry("a command that may fail", map[string]any{"Result": "success", "ExecStop": [][]any{
			{"/bin/false", []string{"/bin/false"}, true, uint64(1), uint64(1), uint64(2), uint64(2), uint32(9), int32(1),
				int32(3)}}},
			service.ResultSuccess, "success"),
		Entry("too late", map[string]any{"Result": "timeout", "ExecMainCode": int32(2), "ExecMainStatus": int32(15)},
			service.ResultTimeout, "timeout"),
		Entry("before it was ready", map[string]any{"Result": "protocol"}, service.ResultProtocol,
			"protocol: ended before READY=1"),
		Entry("a unit that systemd cannot read", map[string]any{"LoadState": "bad-setting"}, service.ResultResources,
			"resources: systemd cannot run the unit, its log says why"),
	)

	DescribeTable("has come only when nothing runs, is ending or is about to start",
		func(p map[string]any, alive bool) { Expect(systemd.Alive(p)).To(Equal(alive)) },
		Entry("unknown", map[string]any{}, false),
		Entry("inactive", map[string]any{"ActiveState": "inactive", "Job": []any{uint32(0), "/"}}, false),
		Entry("failed", map[string]any{"ActiveState": "failed"}, false),
		Entry("inactive with a job", map[string]any{"ActiveState": "inactive", "Job": []any{uint32(7), "/j/7"}}, true),
		Entry("failed with a job", map[string]any{"ActiveState": "failed", "Job": []any{uint32(7), "/j/7"}}, true),
		Entry("waiting for its restart", map[string]any{"ActiveState": "activating"}, true),
		Entry("ending", map[string]any{"ActiveState": "deactivating"}, true),
	)
})

var _ = Describe("An order", func() {
	before := []byte{1, 2}
	DescribeTable("has been carried out if the unit was started since", func(taken bool, p map[string]any, ran bool) {
		Expect(systemd.Ran("0102", taken, p)).To(Equal(ran))
	},
		Entry("systemd took it", true, map[string]any{}, true),
		Entry("failed before it", false,
			map[string]any{"ActiveState": "failed", "InactiveEnterTimestamp": uint64(7), "InvocationID": before}, false),
		Entry("failed since", false, map[string]any{"ActiveState": "failed", "InvocationID": []byte{3}}, true),
		Entry("unloaded", false, map[string]any{"InvocationID": []byte{}}, false),
	)
})

var _ = Describe("A call over D-Bus", func() {
	DescribeTable("that fails was refused or not answered", func(err error, unreached bool) {
		Expect(errors.Is(systemd.Judge(err), host.ErrUnreached)).To(Equal(unreached))
	},
		Entry("the unit cannot be started", dbus.Error{Name: "org.freedesktop.systemd1.BadUnitSetting"}, false),
		Entry("its file cannot be read", dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied"}, false),
		Entry("systemd starts itself anew", dbus.Error{Name: "org.freedesktop.DBus.Error.NoReply"}, true),
		Entry("the bus ended", io.EOF, true),
		Entry("too slow", context.DeadlineExceeded, true),
	)
})

var _ = Describe("A unit file", func() {
	sleeper := []unit.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/sleep 1"}}

	It("has a mark, everything that was put, and no start limit unless there is one", func() {
		dir := filepath.Join(GinkgoT().TempDir(), "system")
		Expect(systemd.Write(dir, "m1", "x.service", sleeper)).To(Succeed())
		Expect(os.ReadFile(dir + "/x.service")).To(BeEquivalentTo(
			"# X-OpenAperture: written by unitd m1\n[Service]\nExecStart=/bin/sleep 1\n\n[Unit]\nStartLimitIntervalSec=0\n"))
		limited := append([]unit.Option{{Section: "Unit", Name: "StartLimitBurst", Value: "2"}}, sleeper...)
		Expect(systemd.Write(dir, "m1", "x.service", limited)).To(Succeed())
		Expect(os.ReadFile(dir + "/x.service")).NotTo(ContainSubstring("IntervalSec"))
		Expect(os.ReadDir(dir)).To(HaveLen(1))
	})

	It("of another one, or a link, is neither listed nor removed", func() {
		dir := GinkgoT().TempDir()
		Expect(systemd.Write(dir, "m1", "a.service", sleeper)).To(Succeed())
		Expect(systemd.Write(dir, "m2", "b.service", sleeper)).To(Succeed())
		Expect(os.Symlink(dir+"/a.service", dir+"/c.service")).To(Succeed())
		Expect(os.WriteFile(dir+"/d.service", nil, 0o600)).To(Succeed())
		Expect(systemd.List(dir, "m1")).To(Equal([]string{"a.service"}))
		for _, name := range []string{"b.service", "c.service", "d.service", "e.service"} {
			Expect(systemd.Remove(dir, "m1", name)).To(BeFalse(), name)
		}
		Expect(systemd.Remove(dir, "m1", "a.service")).To(BeTrue())
		Expect(os.ReadDir(dir)).To(HaveLen(3))
	})

	It("that was not finished is removed, but for another machine's", func() {
		notes, dir := GinkgoT().TempDir(), GinkgoT().TempDir()
		Expect(systemd.Write(dir, "m1", "a.service", sleeper)).To(Succeed())
		for _, file := range []string{
			notes + "/.unitd-1", notes + "/a.service.json", dir + "/.unitd-m1-1", dir + "/.unitd-m2-1",
		} {
			Expect(os.WriteFile(file, nil, 0o600)).To(Succeed())
		}
		Expect(systemd.Units(notes, dir, "m1")).To(Equal([]string{"a.service"}))
		Expect(filepath.Glob(notes + "/.unitd-*")).To(BeEmpty())
		Expect(filepath.Glob(dir + "/.unitd-*")).To(HaveExactElements(dir + "/.unitd-m2-1"))
	})
})

var _ = Describe("A journal", func() {
	const journal = `{"MESSAGE":"Starting x","INVOCATION_ID":"1"}
{"MESSAGE":"one","_SYSTEMD_INVOCATION_ID":"1"}
no json
{"MESSAGE":"Starting x","INVOCATION_ID":"2"}
{"MESSAGE":[27,91,49,109,116,119,111],"_SYSTEMD_INVOCATION_ID":"2"}
{"MESSAGE":null,"_SYSTEMD_INVOCATION_ID":"2"}
`
	DescribeTable("is read as clean lines with one before each start",
		func(lines, limit int, want string) {
			Expect(systemd.Render("x.service", journal, lines, limit)).To(Equal(want))
		},
		Entry("all", 100, 1000, "unitd: starting x.service\nStarting x\none\nunitd: starting x.service\nStarting x\ntwo\n\n"),
		Entry("the last lines", 2, 1000, "two\n\n"),
		Entry("within a number of bytes", 100, 17, "Starting x\ntwo\n\n"),
		Entry("none", 100, 0, ""),
	)
})
