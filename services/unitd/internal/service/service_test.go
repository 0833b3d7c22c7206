package service_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// parse reads a [Service] section given as lines.
func parse(lines ...string) (service.Service, error) {
	options, err := unit.Parse("[Service]\n" + strings.Join(lines, "\n"))
	Expect(err).NotTo(HaveOccurred())
	name, err := unit.ParseName("manager@1.service")
	Expect(err).NotTo(HaveOccurred())
	return service.Parse(name, "h1", options)
}

var _ = Describe("A service", func() {
	It("has systemd's defaults", func() {
		s, err := parse("ExecStart=/bin/a")
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Type).To(Equal(service.Simple))
		Expect(s.Restart).To(Equal(service.RestartNo))
		Expect(s.RestartPause).To(Equal(100 * time.Millisecond))
		Expect(s.TimeoutStart).To(Equal(90 * time.Second))
		Expect(s.TimeoutStop).To(Equal(90 * time.Second))
		Expect(s.KillMode).To(Equal(service.KillControlGroup))
		Expect(s.Ignored).To(BeEmpty())
	})

	It("reads every setting that has an effect", func() {
		s, err := parse("Type=notify", "ExecStartPre=-/bin/pre %i", "ExecStartPre=/bin/pre2",
			"ExecStart=/bin/a --port ${PORT}", "ExecStop=/bin/b $MAINPID",
			`Environment="A=one two" HOSTNAME=%H.%p-%i`, "Environment=B=2", "EnvironmentFile=-/etc/%p.env",
			"WorkingDirectory=-/srv/%p", "User=nobody", "Group=nogroup",
			"Restart=on-failure", "RestartSec=2", "TimeoutStartSec=1min 30s", "TimeoutStopSec=500ms", "KillMode=mixed",
			"RemainAfterExit=yes", "NotifyAccess=all")
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Type).To(Equal(service.Notify))
		Expect(s.StartPre).To(HaveLen(2))
		Expect(s.StartPre[0].IgnoreFailure).To(BeTrue())
		Expect(s.Environment).To(Equal([]string{"A=one two", "HOSTNAME=h1.manager-1", "B=2"}))
		Expect(s.EnvironmentFiles).To(Equal([]service.EnvironmentFile{{Path: "/etc/manager.env", Optional: true}}))
		Expect(s.WorkingDirectory).To(Equal("/srv/manager"))
		Expect(s.DirectoryOptional).To(BeTrue())
		Expect([]string{s.User, s.Group}).To(Equal([]string{"nobody", "nogroup"}))
		Expect(s.Restart).To(Equal(service.RestartOnFailure))
		Expect([]time.Duration{s.RestartPause, s.TimeoutStart, s.TimeoutStop}).
			To(Equal([]time.Duration{2 * time.Second, 90 * time.Second, 500 * time.Millisecond}))
		Expect(s.KillMode).To(Equal(service.KillMixed))
		Expect(s.RemainAfterExit).To(BeTrue())
		Expect(s.NotifyAll).To(BeTrue())
		Expect(s.Ignored).To(BeEmpty())
	})

	It("reports keys without effect instead of refusing them", func() {
		s, err := parse("ExecStart=/bin/a", "MemoryMax=1G", "LimitNOFILE=5", "MemoryMax=2G")
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Ignored).To(Equal([]string{"LimitNOFILE", "MemoryMax"}))
	})

	DescribeTable("switches start timeouts off",
		func(want time.Duration, lines ...string) {
			s, err := parse(append(lines, "ExecStart=/bin/a")...)
			Expect(err).NotTo(HaveOccurred())
			Expect(s.TimeoutStart).To(Equal(want))
		},
		Entry("by 0", service.Infinity, "TimeoutStartSec=0"),
		Entry("by infinity", service.Infinity, "TimeoutStartSec=infinity"),
		Entry("for a oneshot", service.Infinity, "Type=oneshot"),
		Entry("unless a oneshot sets one", 5*time.Second, "Type=oneshot", "TimeoutStartSec=5"),
		Entry("TimeoutSec sets both", 7*time.Second, "TimeoutSec=7"))

	DescribeTable("is refused when unitd could not honour it",
		func(message string, lines ...string) {
			_, err := parse(append(lines, "ExecStart=/bin/a")...)
			Expect(err).To(MatchError(ContainSubstring(message)))
		},
		Entry("type", `Type: "forking" is none of simple, notify`, "Type=forking"),
		Entry("restart", `Restart: "sometimes" is none of no, always`, "Restart=sometimes"),
		Entry("kill mode", `KillMode: "all" is none of`, "KillMode=all"),
		Entry("time span", `RestartSec: "soon" is no time span`, "RestartSec=soon"),
		Entry("boolean", `RemainAfterExit: "maybe" is no boolean`, "RemainAfterExit=maybe"),
		Entry("environment", `Environment: "A" is no KEY=VALUE`, "Environment=A"),
		Entry("directory", `WorkingDirectory: "srv" is no absolute path`, "WorkingDirectory=srv"),
		Entry("environment file", `EnvironmentFile: "x.env" is no absolute path`, "EnvironmentFile=x.env"),
		Entry("specifier", `ExecStartPre: unknown specifier %z`, "ExecStartPre=/bin/a %z"))
})

var _ = Describe("A time span", func() {
	DescribeTable("is read as systemd does", func(text string, want time.Duration) {
		Expect(service.ParseSpan(text)).To(Equal(want))
	},
		Entry("seconds", "90", 90*time.Second), Entry("a fraction", "1.5", 1500*time.Millisecond),
		Entry("units", "5min 20s", 320*time.Second), Entry("without space", "1h30m", 90*time.Minute),
		Entry("with space", "2 hours", 2*time.Hour), Entry("small", "500ms 250us", 500250*time.Microsecond),
		Entry("weeks and days", "1w 1d", 8*24*time.Hour), Entry("infinity", "infinity", service.Infinity),
		Entry("beyond", "999999999999 weeks", service.Infinity), Entry("zero", "0", time.Duration(0)))

	DescribeTable("is refused", func(text string) {
		_, err := service.ParseSpan(text)
		Expect(err).To(HaveOccurred())
	},
		Entry("empty", ""), Entry("words", "soon"), Entry("a foreign unit", "5 parsecs"), Entry("negative", "-5"),
		Entry("two points", "1.2.3s"))
})

var _ = Describe("Restarting", func() {
	results := []service.Result{service.ResultSuccess, service.ResultExitCode, service.ResultSignal, service.ResultTimeout,
		service.ResultProtocol, service.ResultResources, service.ResultLost}

	DescribeTable("follows systemd's table", func(policy service.Restart, want ...service.Result) {
		var got []service.Result
		for _, r := range results {
			if policy.After(r) {
				got = append(got, r)
			}
		}
		Expect(got).To(HaveExactElements(want))
	},
		Entry("no", service.RestartNo),
		Entry("always", service.RestartAlways, service.ResultSuccess, service.ResultExitCode, service.ResultSignal,
			service.ResultTimeout, service.ResultProtocol, service.ResultResources, service.ResultLost),
		Entry("on-success", service.RestartOnSuccess, service.ResultSuccess),
		Entry("on-failure", service.RestartOnFailure, service.ResultExitCode, service.ResultSignal, service.ResultTimeout,
			service.ResultProtocol, service.ResultResources, service.ResultLost),
		Entry("on-abnormal", service.RestartOnAbnormal, service.ResultSignal, service.ResultTimeout, service.ResultLost),
		Entry("on-abort", service.RestartOnAbort, service.ResultSignal, service.ResultLost),
		Entry("on-watchdog", service.RestartOnWatchdog))

	DescribeTable("backs off", func(pause time.Duration, streak int, want time.Duration) {
		Expect(service.Delay(pause, streak)).To(Equal(want))
	},
		Entry("first", 100*time.Millisecond, 0, 100*time.Millisecond),
		Entry("after a steady run", 100*time.Millisecond, -1, 100*time.Millisecond),
		Entry("doubling", 100*time.Millisecond, 3, 800*time.Millisecond),
		Entry("to 30 s", 100*time.Millisecond, 50, 30*time.Second),
		Entry("from zero", time.Duration(0), 2, 20*time.Millisecond),
		Entry("first from zero", time.Duration(0), 0, time.Duration(0)),
		Entry("a longer RestartSec stays", time.Minute, 9, time.Minute))

	It("forgets a streak after ten seconds up", func() {
		Expect(service.Streak(4, 10*time.Second)).To(Equal(0))
		Expect(service.Streak(4, 10*time.Second-1)).To(Equal(5))
	})
})

var _ = Describe("An environment file", func() {
	DescribeTable("is read", func(text string, want ...string) {
		Expect(service.ParseEnvironment(text)).To(HaveExactElements(want))
	},
		Entry("lines", "A=1\nB=two words\n", "A=1", "B=two words"),
		Entry("comments and blanks", "# c\n; d\n\nA=1", "A=1"),
		Entry("quotes", `A="x y"`+"\n"+`B='z "q"'`, "A=x y", `B=z "q"`),
		Entry("an empty value", "A=\n", "A="),
		Entry("continued", "A=1\\\n2\r\nB=3", "A=12", "B=3"),
		Entry("backslashes in single quotes", `A='a\nb\'`, `A=a\nb\`),
		Entry("backslashes in double quotes", `A="x\ty \"\\\$\`+"`\"", "A=x\\ty \"\\$`"),
		Entry("a line continued in double quotes", "A=\"1\\\n2\"", "A=12"),
		Entry("backslashes without quotes", `A=a\b\\c\ `+"\n"+`B=\"q`, `A=ab\c `, `B="q`),
		Entry("values of several lines", "KEY=\"-----BEGIN\nabc=\n\n-----END\"\nB='1\n2'\nC=3",
			"KEY=-----BEGIN\nabc=\n\n-----END", "B=1\n2", "C=3"),
		Entry("quotes beside one another", `A="x"'y' "z" w`+"\n"+`B=it's "so"`, "A=xyzw", `B=it's "so"`),
		Entry("blanks around", " A = x y \t\nB=\t'z ' \n", "A=x y", "B=z "),
		Entry("an end within a value", "A=1\nB='2 ", "A=1", "B=2 "),
		Entry("an end after a backslash", "A=1\\", "A=1"),
		Entry("a comment with a backslash at its end", "# a\\\nA=1", "A=1"),
		Entry("without what is no assignment", "A=1\nsecret\nexport B=1\n1C=1\nD.E=1\n=1\nF=1\nlast", "A=1", "F=1"),
		Entry("more =", "DSN=a=b=c", "DSN=a=b=c"))

	It("is laid over what stands before", func() {
		Expect(service.Merge([]string{"A=1", "B=1"}, []string{"B=2", "B=3"})).To(Equal(map[string]string{"A": "1", "B": "3"}))
	})
})
