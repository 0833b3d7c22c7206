package boot_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/boot"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func file(text string) string {
	path := filepath.Join(GinkgoT().TempDir(), "config.yaml")
	Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
	return path
}

func setenv(pairs ...string) {
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		GinkgoT().Setenv(key, value)
	}
}

// execute runs the sample service in this process, for what never serves.
func execute(args ...string) (code int, stdout, stderr string) {
	var out, complaints bytes.Buffer
	code = boot.Execute(sampleService(), args, &out, &complaints)
	return code, out.String(), complaints.String()
}

var _ = Describe("The configuration", func() {
	It("is the defaults without file and environment", func() {
		cfg, err := boot.Load(defaults(), "")
		Expect(err).ToNot(HaveOccurred())
		Expect(cfg).To(Equal(defaults()))
	})

	It("takes the file over the defaults and the environment over the file", func() {
		setenv("OPENAPERTURE_PERIOD=5s", "OPENAPERTURE_BROKER_URL=amqp://u:p@h/", "OPENAPERTURE_HOSTS=x, y",
			"OPENAPERTURE_LABELS={\"a\":\"b\"}", "OPENAPERTURE_TIMEOUT=")
		cfg, err := boot.Load(defaults(), file("period: 30s\ntimeout: 2s\nbroker: {attempts: 7}\n"))
		Expect(err).ToNot(HaveOccurred())
		Expect(cfg.Period).To(Equal(5 * time.Second))
		Expect(cfg.Timeout).To(Equal(2 * time.Second))
		Expect(cfg.Hosts).To(Equal([]string{"x", "y"}))
		Expect(cfg.Labels).To(Equal(map[string]string{"a": "b"}))
		Expect(cfg.Broker.URL.Reveal()).To(Equal("amqp://u:p@h/"))
		Expect(cfg.Broker.Attempts).To(Equal(7))
		Expect(cfg.LogLevel).To(Equal("info"))
	})

	DescribeTable("is refused with one line that names the key, and exit code 2",
		func(yaml, env, want string) {
			if env != "" {
				setenv(env)
			}
			code, _, stderr := execute("--config", file(yaml), "--check-config")
			Expect(code).To(Equal(2))
			Expect(strings.Count(stderr, "\n")).To(Equal(1))
			Expect(stderr).To(ContainSubstring(want))
		},
		Entry("an unknown key", "perod: 3s", "", "unknown key perod"),
		Entry("an unknown key deep inside", "broker: {uri: x}", "", "unknown key broker.uri"),
		Entry("two unknown keys", "b: 1\na: 1", "", "unknown key a, b"),
		Entry("a duration without unit", "period: 30", "", "30 is no duration"),
		Entry("a duration that is none", "period: soon", "", "'period' time: invalid duration"),
		Entry("a broken relation", "period: 1s", "", "timeout 1s: want less than period 1s"),
		Entry("a shared key", "log_level: loud", "", `log_level "loud"`),
		Entry("a log format", "log_format: xml", "", `log_format "xml"`),
		Entry("an address without port", "listen: localhost", "", `listen "localhost"`),
		Entry("a stop that takes too long", "shutdown_timeout: 31s", "", "shutdown_timeout 31s"),
		Entry("no YAML", "a: [", "", "read configuration"),
		Entry("a number that is none", "", "OPENAPERTURE_BROKER_ATTEMPTS=many", "'broker.attempts'"),
		Entry("a map that is no JSON", "", "OPENAPERTURE_LABELS=x", "environment OPENAPERTURE_LABELS: want JSON"),
		Entry("a secret that cannot be read", "token_file: /nowhere/token", "", "read secret: open /nowhere/token"),
		Entry("a host name with a slash", "", "HOSTNAME=a/b", `HOSTNAME "a/b"`),
	)
})

var _ = Describe("The command line", func() {
	DescribeTable("answers without serving",
		func(code int, stdout, stderr string, args ...string) {
			c, out, complaint := execute(args...)
			Expect(c).To(Equal(code))
			Expect(out).To(ContainSubstring(stdout))
			Expect(complaint).To(ContainSubstring(stderr))
		},
		Entry("version", 0, "sample 1.2.3\n", "", "--version"),
		Entry("help says what it is", 0, "A service of the specs.", "", "--help"),
		Entry("help lists commands", 0, "stop-all         stop everything", "", "-h"),
		Entry("help explains the environment", 0, "OPENAPERTURE_LOG_LEVEL=debug", "", "--help"),
		Entry("sample", 0, string(sample), "", "--print-sample"),
		Entry("check", 0, "configuration is valid", "", "--check-config"),
		Entry("an unknown flag", 2, "", "unknown flag: --nope", "--nope"),
		Entry("an unknown command", 2, "", `unknown command "nope"`, "nope"),
		Entry("a wrong argument", 2, "", "healthcheck takes", "healthcheck", "x"),
		Entry("a missing file", 2, "", "read configuration /nope.yaml", "--config", "/nope.yaml"),
		Entry("a command that fails", 1, "", "sample: stopped [now] of [a]", "stop-all", "now"),
	)

	DescribeTable("reads secrets only to serve, and to check the configuration",
		func(code int, complaint string, args ...string) {
			c, _, stderr := execute(append([]string{"--config", file("token_file: /nowhere/token\nlisten: 127.0.0.1:1\n")},
				args...)...)
			Expect(c).To(Equal(code))
			Expect(stderr).To(ContainSubstring(complaint))
		},
		Entry("to serve", 2, "/nowhere/token"),
		Entry("to check", 2, "/nowhere/token", "--check-config"),
		Entry("not to ask for the health", 1, "connection refused", "healthcheck"),
		Entry("not for a command", 1, "stopped [now]", "stop-all", "now"),
	)

	It("takes the configuration file from the environment", func() {
		setenv("OPENAPERTURE_CONFIG=" + file("hosts: [from-file]"))
		_, _, stderr := execute("stop-all")
		Expect(stderr).To(ContainSubstring("of [from-file]"))
	})

	It("ships a sample that loads", func() {
		code, _, stderr := execute("--check-config", "--config", file(string(sample)))
		Expect(stderr).To(BeEmpty())
		Expect(code).To(BeZero())
	})
})

var _ = Describe("Secret", func() {
	const secret = boot.Secret("hunter2")

	DescribeTable("never shows itself in fmt",
		func(verb string) {
			Expect(fmt.Sprintf(verb, secret)).To(Equal("[redacted]"))
			Expect(fmt.Sprintf(verb, broker{URL: secret})).ToNot(ContainSubstring("hunter2"))
			Expect(fmt.Sprintf(verb, &broker{URL: secret})).ToNot(ContainSubstring("hunter2"))
		},
		Entry("v", "%v"), Entry("+v", "%+v"), Entry("#v", "%#v"), Entry("s", "%s"), Entry("q", "%q"), Entry("x", "%x"),
		Entry("d", "%d"),
	)

	It("never shows itself in JSON and zap", func() {
		text, err := json.Marshal(map[string]any{"a": secret, "b": broker{URL: secret}})
		Expect(err).ToNot(HaveOccurred())
		Expect(text).To(MatchJSON(`{"a":"[redacted]","b":{"URL":"[redacted]","Attempts":0}}`))
		core, logs := observer.New(zapcore.DebugLevel)
		zap.New(core).Info("x", zap.Any("a", secret), zap.Any("b", broker{URL: secret}), zap.Stringer("c", secret))
		line, err := zapcore.NewJSONEncoder(zapcore.EncoderConfig{}).EncodeEntry(zapcore.Entry{}, logs.All()[0].Context)
		Expect(err).ToNot(HaveOccurred())
		Expect(line.String()).To(ContainSubstring("[redacted]"))
		Expect(line.String()).ToNot(ContainSubstring("hunter2"))
	})

	It("shows that it is empty, and reveals itself when asked", func() {
		Expect(fmt.Sprint(boot.Secret(""))).To(BeEmpty())
		Expect(secret.Reveal()).To(Equal("hunter2"))
	})

	DescribeTable("comes from the value or from a file",
		func(value boot.Secret, content *string, want, problem string) {
			path := ""
			if content != nil {
				path = file(*content)
			}
			got, err := boot.SecretFrom(value, path)
			if problem != "" {
				Expect(err).To(MatchError(ContainSubstring(problem)))
				return
			}
			Expect(err).ToNot(HaveOccurred())
			Expect(got.Reveal()).To(Equal(want))
		},
		Entry("a value", secret, nil, "hunter2", ""),
		Entry("neither", boot.Secret(""), nil, "", ""),
		Entry("a file with a line break", boot.Secret(""), new("from file \n"), "from file ", ""),
		Entry("both", secret, new("x"), "", "both set"),
		Entry("an empty file", boot.Secret(""), new("\n"), "", "is empty"),
	)

	It("says which file cannot be read", func() {
		_, err := boot.SecretFrom("", "/nope/secret")
		Expect(err).To(MatchError(ContainSubstring("read secret: open /nope/secret")))
	})
})
