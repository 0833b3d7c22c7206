package fleetapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/services/unitd/internal/direct"
	"github.com/openaperture/openaperture/services/unitd/internal/fleetapi"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
)

// harness is one host with its API on a loopback port; nothing of it is shared between specs.
type harness struct {
	dir      string // the state directory
	host     *host.Host
	server   *httptest.Server
	stopping chan struct{}
}

func serve(token string) *harness {
	dir := GinkgoT().TempDir()
	backend, err := direct.New(dir, program, zap.NewNop())
	Expect(err).NotTo(HaveOccurred())
	h, err := host.Open(host.Config{
		StateDir: dir, Backend: backend, Hostname: "h1",
		Metadata: map[string]string{"role": "app", "rank": "1"}, Log: zap.NewNop(),
	})
	Expect(err).NotTo(HaveOccurred())
	one := &harness{dir: dir, host: h, stopping: make(chan struct{})}
	one.server = httptest.NewServer(fleetapi.New(fleetapi.Config{
		Host: h, Token: token, Version: "1", Log: zap.NewNop(), Stopping: one.stopping,
	}))
	ctx, cancel := context.WithCancel(context.Background())
	joined := make(chan struct{})
	go func() { defer close(joined); _ = h.Run(ctx) }()
	DeferCleanup(func() {
		one.server.Close()
		cancel()
		Eventually(joined).WithTimeout(10 * time.Second).Should(BeClosed())
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		Expect(h.StopAll(ctx, false)).To(Succeed())
		Expect(h.Close()).To(Succeed())
	})
	return one
}

// answer is what a spec looks at.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

func (h *harness) do(method, path, body string, header ...string) answer {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(context.Background(), method, h.server.URL+path, strings.NewReader(body))
	Expect(err).NotTo(HaveOccurred())
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return answer{response.StatusCode, response.Header, string(text)}
}

// put sends options given as `Section.Name=Value`.
func (h *harness) put(name, desired string, token string, options ...string) answer {
	GinkgoHelper()
	var list []map[string]string
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		section, key, _ := strings.Cut(key, ".")
		list = append(list, map[string]string{"section": section, "name": key, "value": value})
	}
	body, err := json.Marshal(map[string]any{"desiredState": desired, "options": list})
	Expect(err).NotTo(HaveOccurred())
	if token == "" {
		return h.do("PUT", "/fleet/v1/units/"+name, string(body))
	}
	return h.do("PUT", "/fleet/v1/units/"+name, string(body), fleetapi.TokenHeader, token)
}

// state is the unit's state, empty where none is listed.
func (h *harness) state(name string) host.State {
	GinkgoHelper()
	var page struct{ States []host.State }
	Expect(json.Unmarshal([]byte(h.do("GET", "/fleet/v1/state?unitName="+name, "").Body), &page)).To(Succeed())
	if len(page.States) == 0 {
		return host.State{}
	}
	return page.States[0]
}

func (h *harness) active(name string) func() string {
	return func() string { return h.state(name).Active }
}
