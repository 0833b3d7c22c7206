package managerapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

func TestManagerAPI(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "managerapi")
}

// former is a manager-api that refuses some fields of requests, as each release refuses those of the next one.
type former struct {
	unknown string
	bodies  []string
}

func (f *former) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	f.bodies = append(f.bodies, string(raw))
	var fields map[string]any
	_ = json.Unmarshal(raw, &fields)
	w.Header().Set("Content-Type", "application/problem+json")
	if _, there := fields[f.unknown]; there {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"status":400,"code":"malformed","detail":"unknown field /`+f.unknown+`"}`)
		return
	}
	_, _ = io.WriteString(w, `{}`)
}

var _ = Describe("The client", func() {
	ctx := context.Background()
	against := func(unknown string) (*managerapi.Client, *former) {
		f := &former{unknown: unknown}
		server := httptest.NewServer(f)
		DeferCleanup(server.Close)
		return managerapi.New(server.URL, "t0ken"), f
	}

	DescribeTable("does without a field that the former release of manager-api refuses (N-1)",
		func(field string, call func(*managerapi.Client) error) {
			c, f := against(field)
			Expect(call(c)).To(Succeed())
			Expect(f.bodies).To(HaveExactElements(ContainSubstring(`"`+field+`"`), Not(ContainSubstring(`"`+field+`"`))))
			c, f = against("")
			Expect(call(c)).To(Succeed())
			Expect(f.bodies).To(HaveExactElements(ContainSubstring(`"` + field + `"`)))
		},
		Entry("what a start rests on", "saw", func(c *managerapi.Client) error {
			return c.Start(ctx, "u1", managerapi.Judgement{Term: 1, Target: upgrade.Version{SourceRepoGitRef: "v2"},
				Saw: &managerapi.Saw{}})
		}),
		Entry("what a refusal rests on", "saw", func(c *managerapi.Client) error {
			return c.Refuse(ctx, "u1", managerapi.Judgement{Term: 1, Saw: &managerapi.Saw{}})
		}),
		Entry("what an overseer can do", "capabilities", func(c *managerapi.Client) error {
			_, err := c.Lead(ctx, 1, managerapi.LeaseRequest{Holder: "o1", Capabilities: []string{managerapi.CapInstances}})
			return err
		}),
		Entry("what an executor can do", "capabilities", func(c *managerapi.Client) error {
			_, err := c.Claim(ctx, "1", managerapi.ClaimRequest{Hostname: "d1", Capabilities: []string{managerapi.CapInstances}})
			return err
		}),
	)

	It("does not repeat what is refused for another reason", func() {
		c, f := against("term")
		err := c.Prove(ctx, "u1", managerapi.Judgement{Term: 1})
		Expect(fault.Is(err, fault.Invalid)).To(BeTrue())
		Expect(f.bodies).To(HaveLen(1))
	})
})
