package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

var _ = Describe("The sealing key", Label("integration"), func() {
	var cfg config
	key := func(id string) string {
		return id + " " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(id[:1]), 32)) + "\n"
	}

	// started is a manager-api with these keys that has sealed what there is to seal, and what it logged.
	started := func(keys string) (*service, *observer.ObservedLogs) {
		GinkgoHelper()
		Expect(os.WriteFile(cfg.SealingKeyFile, []byte(keys), 0o600)).To(Succeed())
		core, logs := observer.New(zap.InfoLevel)
		env, err := boot.NewEnv("manager-api", "v1", cfg.Base, zap.New(core))
		Expect(err).NotTo(HaveOccurred())
		s, err := newService(cfg, env)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(s.close)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = s.migrate(ctx) }()
		DeferCleanup(func() { cancel(); Eventually(ended, "10s").Should(BeClosed()) })
		Eventually(s.sealed, "20s").Should(BeClosed())
		return s, logs
	}

	password := func(s *service) (string, error) {
		rows, err := s.registry.OpenConnections(context.Background(), 1, s.keys)
		if err != nil {
			return "", err
		}
		return rows[0].Password.Reveal(), nil
	}

	BeforeEach(func() {
		cfg = defaultConfig()
		cfg.DatabaseURL = boot.Secret(pgtest.New(func(context.Context, postgres.Config) error { return nil }).URL)
		cfg.AMQPURL, cfg.HomeExchange = "amqp://127.0.0.1/", "local"
		cfg.SealingKeyFile = filepath.Join(GinkgoT().TempDir(), "keys")
		s, logs := started(key("old"))
		broker, err := s.registry.CreateBroker(context.Background(), registry.BrokerSpec{Name: "b"})
		Expect(err).NotTo(HaveOccurred())
		_, err = s.registry.CreateConnection(context.Background(), broker,
			registry.ConnectionSpec{Username: "u", Host: "h", VirtualHost: "/"}, "hunter2", s.keys)
		Expect(err).NotTo(HaveOccurred())
		Expect(logs.FilterMessageSnippet("sealed").Len()).To(Equal(0), "there was nothing to seal")
	})

	It("is replaced by a start with a new first one, after which the old one may go", func() {
		_, logs := started(key("new") + key("old"))
		Expect(logs.FilterMessage("broker passwords sealed anew").All()).To(HaveLen(1))
		Expect(logs.All()[0].ContextMap()).To(And(HaveKeyWithValue("passwords", int64(1)), HaveKeyWithValue("key", "new")))
		s, logs := started(key("new"))
		Expect(logs.FilterMessageSnippet("sealed").Len()).To(Equal(0))
		Expect(password(s)).To(Equal("hunter2"))
	})

	It("that went too early keeps nobody from starting, and says what to do", func() {
		_, logs := started(key("new"))
		Expect(logs.FilterMessageSnippet("keep the old keys in sealing_key_file").Len()).To(Equal(1))
		s, _ := started(key("new") + key("old"))
		Expect(password(s)).To(Equal("hunter2"))
	})
})
