package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/services/manager-api/internal/api"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

func TestAPI(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "api", Label("integration"))
}

var database *pgtest.Database

var _ = BeforeSuite(func() { database = pgtest.New(db.Migrate, "schema_info") })

// harness is one server over an empty database; nothing in it is shared between specs.
type harness struct {
	url      string
	db       *postgres.DB
	memory   *db.DB
	registry *registry.Registry
	engine   *engine.Engine
	server   *api.Server
	logs     *observer.ObservedLogs
}

// The specs' tokens are named after their role; here and there are the ids of the first two exchanges of a spec.
const (
	here  = component.ExchangeID(1)
	there = component.ExchangeID(2)
)

func tokenOf(name string) string { return "token-of-" + name + "-0123456789" }

func token(name string, role api.Role, exchange component.ExchangeID) api.Token {
	sum := sha256.Sum256([]byte(tokenOf(name)))
	return api.Token{Name: name, Role: role, ExchangeID: exchange, Hash: "sha256:" + hex.EncodeToString(sum[:])}
}

func tokens() []api.Token {
	return []api.Token{
		token("admin", api.RoleAdmin, 0), token("operator", api.RoleOperator, 0), token("viewer", api.RoleViewer, 0),
		token("service", api.RoleService, here), token("module", api.RoleModule, here),
		token("foreign-operator", api.RoleOperator, there), token("foreign-service", api.RoleService, there),
		token("foreign-module", api.RoleModule, there),
	}
}

func start(change ...func(*api.Config)) *harness {
	GinkgoHelper()
	return startOn(database.Pool, change...)
}

// startOn is start on a pool of the spec's own.
func startOn(pool *postgres.DB, change ...func(*api.Config)) *harness {
	GinkgoHelper()
	database.Truncate()
	core, logs := observer.New(zapcore.DebugLevel)
	core = zapcore.NewTee(core, zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()),
		zapcore.AddSync(GinkgoWriter), zapcore.DebugLevel))
	short, err := times.Named(times.Fast)
	Expect(err).NotTo(HaveOccurred())
	h := &harness{db: pool, logs: logs}
	d := db.New(db.Config{Pool: h.db, Times: short})
	h.memory = d
	h.engine = engine.New(engine.Config{DB: d, Times: short, Home: "home"})
	h.registry = registry.New(d, h.engine, "home")
	keys, err := seal.Parse([]byte("k1 " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))))
	Expect(err).NotTo(HaveOccurred())
	cfg := api.Config{DB: d, Engine: h.engine, Presence: presence.New(d, short), Registry: h.registry, Tokens: tokens(),
		Times: short, Keys: keys, Log: zap.New(core), Version: "v1"}
	for _, c := range change {
		c(&cfg)
	}
	h.server, err = api.New(cfg)
	Expect(err).NotTo(HaveOccurred())
	listener := httptest.NewServer(h.server)
	DeferCleanup(listener.Close)
	h.url = listener.URL
	return h
}

// answer is what a call got.
type answer struct {
	status int
	header http.Header
	body   string
}

// call sends a request as the admin unless a header says otherwise. Headers come as name, value, name, value …
func (h *harness) call(method, path, body string, headers ...string) answer {
	GinkgoHelper()
	req, err := http.NewRequestWithContext(context.Background(), method, h.url+path, strings.NewReader(body))
	Expect(err).NotTo(HaveOccurred())
	req.Header.Set("Authorization", "Bearer "+tokenOf("admin"))
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	Expect(err).NotTo(HaveOccurred())
	return answer{res.StatusCode, res.Header, string(raw)}
}

// as is the header of another caller.
func as(name string) (header, value string) { return "Authorization", "Bearer " + tokenOf(name) }

func (h *harness) callAs(name, method, path, body string) answer {
	GinkgoHelper()
	header, value := as(name)
	return h.call(method, path, body, header, value)
}

// ok calls and expects a status.
func (h *harness) ok(status int, method, path, body string) answer {
	GinkgoHelper()
	a := h.call(method, path, body)
	Expect(a.status).To(Equal(status), "%s %s: %s", method, path, a.body)
	return a
}

// object reads the body as a JSON object.
func (a answer) object() map[string]any {
	GinkgoHelper()
	var o map[string]any
	Expect(json.Unmarshal([]byte(a.body), &o)).To(Succeed(), a.body)
	return o
}

// objects reads the body as a JSON array.
func (a answer) objects() []map[string]any {
	GinkgoHelper()
	var o []map[string]any
	Expect(json.Unmarshal([]byte(a.body), &o)).To(Succeed(), a.body)
	return o
}

// exchanges makes the exchanges here (1) and there (2).
func (h *harness) exchanges() {
	GinkgoHelper()
	for _, name := range []string{"home", "away"} {
		h.ok(201, "POST", "/messaging/exchanges", fmt.Sprintf(`{"name":%q,"routing_key_fragment":%q}`, name, name))
	}
}

const aComponent = `{"type":"overseer","messaging_exchange_id":1,"deployment_repo":"git/overseer_deploy",
	"deployment_repo_git_ref":"main","upgrade_strategy":"manual"}`

const aRef = `{"type":"overseer","source_repo":"git/overseer","source_repo_git_ref":"v2","auto_upgrade_enabled":true}`

// journal lists the codes of a subject, oldest first.
func (h *harness) journal(subject string) []string {
	GinkgoHelper()
	var codes []string
	Expect(h.db.Select(&codes, `SELECT code FROM journal WHERE subject = $1 ORDER BY seq`, subject)).To(Succeed())
	return codes
}
