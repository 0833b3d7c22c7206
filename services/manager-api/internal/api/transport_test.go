package api_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/services/manager-api/internal/api"
)

var _ = Describe("The server", func() {
	DescribeTable("/status is an empty string for everybody", func(accept string) {
		h := start()
		a := h.call("GET", "/status", "", "Authorization", "", "Accept", accept)
		Expect(a.status).To(Equal(200))
		Expect(a.body).To(Equal(`""`))
	},
		Entry("without Accept", ""), Entry("for JSON clients", "application/json"), Entry("for browsers", "text/html"))

	It("answers 500 where a handler panics, and the panic is counted with its route", func() {
		h := start(func(c *api.Config) { c.Registry = nil })
		var heard []string
		ctx := loop.WithPanics(context.Background(), func(p *loop.Panic) { heard = append(heard, p.Part+" "+p.Item) })
		r := httptest.NewRequestWithContext(ctx, "GET", "/system_component_refs", nil)
		r.Header.Set("Authorization", "Bearer "+tokenOf("admin"))
		w := httptest.NewRecorder()
		h.server.ServeHTTP(w, r)
		Expect(w.Code).To(Equal(500))
		Expect(w.Body.String()).NotTo(ContainSubstring("nil pointer"))
		Expect(heard).To(Equal([]string{"api GET /system_component_refs"}))
	})

	DescribeTable("cleans paths in place", func(path string, want int) {
		h := start()
		h.ok(201, "POST", "//system_component_refs", aRef)
		Expect(h.call("GET", path, "").status).To(Equal(want))
	},
		Entry("a doubled slash", "//system_component_refs", 200),
		Entry("doubled slashes within", "/system_component_refs//overseer", 200),
		Entry("a trailing slash", "/system_component_refs/overseer/", 200),
		Entry("dots", "/x/../system_component_refs/./overseer", 200),
		Entry("an escaped slash stays part of its segment", "/system_component_refs/over%2Fseer", 404),
	)

	DescribeTable("answers what it does not know in JSON, whatever Accept says",
		func(method, path, accept string, status int, body string) {
			h := start()
			a := h.call(method, path, "", "Accept", accept)
			Expect(a.status).To(Equal(status))
			Expect(a.body).To(MatchJSON(body))
			Expect(a.header.Get("Content-Type")).To(HavePrefix("application/json"))
		},
		Entry("an unknown route", "GET", "/nothing", "application/json", 404, `{"errors":[{"message":"Page not found"}]}`),
		Entry("an unknown route for a browser", "GET", "/nothing", "text/html", 404,
			`{"errors":[{"message":"Page not found"}]}`),
		Entry("an unknown method", "PATCH", "/system_components", "*/*", 405,
			`{"errors":[{"message":"Method not allowed"}]}`),
		Entry("a malformed id", "GET", "/system_components/abc", "*/*", 404,
			`{"errors":[{"message":"SystemComponent abc was not found"}]}`),
		Entry("an id beyond 32 bits", "GET", "/messaging/brokers/4294967296", "*/*", 404,
			`{"errors":[{"message":"MessagingBroker was not found"}]}`),
		Entry("an id with an injection", "GET", "/messaging/exchanges/1%20OR%201=1", "*/*", 404,
			`{"errors":[{"message":"MessagingExchange was not found"}]}`),
	)

	It("names the allowed methods", func() {
		h := start()
		Expect(h.call("PATCH", "/system_components", "").header.Get("Allow")).To(Equal("GET, POST"))
	})

	DescribeTable("refuses malformed bodies with 400 in JSON", func(body string) {
		h := start()
		a := h.call("POST", "/system_component_refs", body)
		Expect(a.status).To(Equal(400), a.body)
		Expect(a.object()).To(HaveKey("errors"))
	},
		Entry("half an object", `{"type":`),
		Entry("something behind", aRef+`x`),
		Entry("two objects", aRef+aRef),
		Entry("a key twice", `{"type":"a","type":"b","source_repo":"r","source_repo_git_ref":"v",
			"auto_upgrade_enabled":true}`),
		Entry("a nested key twice", `{"type":"a","source_repo":"r","source_repo_git_ref":"v","auto_upgrade_enabled":true,
			"x":[{"y":1,"y":2}]}`),
		Entry("NaN", `{"type":NaN}`),
		Entry("a depth of 20000", strings.Repeat(`{"a":`, 20000)+"1"+strings.Repeat("}", 20000)),
		Entry("a NUL in a string", `{"type":"a\u0000b","source_repo":"r","source_repo_git_ref":"v",
			"auto_upgrade_enabled":true}`),
		Entry("an array, which counts as no fields", `[]`),
		Entry("nothing, which counts as no fields", ``),
	)

	DescribeTable("says what is wrong with the body of a new resource", func(body, want string) {
		h := start()
		h.exchanges()
		a := h.ok(400, "PUT", "/messaging/exchanges/1/leader", body)
		Expect(a.object()).To(And(HaveKeyWithValue("code", "malformed_body"),
			HaveKeyWithValue("detail", ContainSubstring(want))))
	},
		Entry("a field that it has not", `{"nope":1}`, "unknown field /nope"),
		Entry("a field of another kind", `{"holder":7}`, "field /holder does not take this JSON number"),
		Entry("no object", `[]`, "the body must be a JSON object"),
		Entry("no JSON", `{"holder":"h"`, "malformed JSON: "),
		Entry("a key twice", `{"holder":"a","holder":"b"}`, `malformed JSON: duplicate object member name "holder"`),
		Entry("no UTF-8", "{\"holder\":\"\xe9\"}", "malformed JSON: invalid UTF-8"),
	)

	It("reads bytes that are no UTF-8 as Latin-1", func() {
		h := start()
		h.ok(201, "POST", "/system_component_refs",
			"{\"type\":\"caf\xe9\",\"source_repo\":\"r\",\"source_repo_git_ref\":\"v\",\"auto_upgrade_enabled\":true}")
		Expect(h.ok(200, "GET", "/system_component_refs/caf%C3%A9", "").object()).To(HaveKeyWithValue("type", "café"))
	})

	DescribeTable("reads the fields of", func(contentType, query, body string, want int) {
		h := start()
		Expect(h.call("POST", "/system_component_refs"+query, body, "Content-Type", contentType).status).To(Equal(want))
	},
		Entry("JSON with a charset", "application/json; charset=utf-8", "", aRef, 201),
		Entry("another JSON", "application/vnd.x+json", "", aRef, 201),
		Entry("a form", "application/x-www-form-urlencoded", "",
			"type=a&source_repo=r&source_repo_git_ref=v&auto_upgrade_enabled=1", 201),
		Entry("a multipart form", "multipart/form-data; boundary=X", "",
			multipart("type", "a", "source_repo", "r", "source_repo_git_ref", "v", "auto_upgrade_enabled", "true"), 201),
		Entry("the query", "application/json", "?type=a&source_repo=r&source_repo_git_ref=v&auto_upgrade_enabled=true", "",
			201),
		Entry("no other type", "text/plain", "", aRef, 400),
	)

	It("lets nothing in the body override the path", func() {
		h := start()
		h.ok(201, "POST", "/system_component_refs", aRef)
		h.ok(204, "PUT", "/system_component_refs/overseer?type=q",
			`{"type":"other","id":7,"source_repo":"new","source_repo_git_ref":"v3","auto_upgrade_enabled":false}`)
		Expect(h.ok(200, "GET", "/system_component_refs", "").objects()).
			To(ConsistOf(And(HaveKeyWithValue("type", "overseer"), HaveKeyWithValue("source_repo", "new"))))
	})

	It("refuses a body of more than 1 MiB", func() {
		h := start()
		a := h.call("POST", "/system_component_refs", `{"type":"`+strings.Repeat("x", 1<<20)+`"}`)
		Expect(a.status).To(Equal(413))
		Expect(a.object()).To(HaveKey("errors"))
	})

	It("answers preflights before authentication and lets browsers read Location", func() {
		h := start()
		pre := h.call("OPTIONS", "/system_components", "", "Authorization", "", "Origin", "https://x",
			"Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization, content-type")
		Expect(pre.status).To(Equal(200))
		Expect(pre.header.Get("Access-Control-Allow-Origin")).To(Equal("*"))
		Expect(h.call("OPTIONS", "/system_components", "", "Authorization", "", "Origin", "https://x",
			"Access-Control-Request-Method", "TRACE").status).To(Equal(403))
		Expect(h.call("OPTIONS", "/system_components", "", "Authorization", "", "Origin", "https://x",
			"Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "X-Evil").status).To(Equal(403))
		Expect(h.call("GET", "/system_components", "", "Origin", "https://x").header.Get("Access-Control-Expose-Headers")).
			To(ContainSubstring("Location"))
	})

	It("shows the caches and content type of the predecessor", func() {
		h := start()
		a := h.ok(200, "GET", "/system_components", "")
		Expect(a.body).To(Equal("[]"))
		Expect(a.header.Get("Content-Type")).To(Equal("application/json; charset=utf-8"))
		Expect(a.header.Get("Cache-Control")).To(Equal("max-age=0, private, must-revalidate"))
	})

	It("writes the request's id and the caller into the journal and gives the id back", func() {
		h := start()
		a := h.call("POST", "/system_component_refs", aRef, "X-Request-Id", "req-7")
		Expect(a.header.Get("X-Request-Id")).To(Equal("req-7"))
		var row struct {
			Actor string `db:"actor"`
			ID    string `db:"request_id"`
		}
		Expect(h.db.Get(&row, `SELECT actor, request_id FROM journal`)).To(Succeed())
		Expect(row.Actor).To(Equal("admin"))
		Expect(row.ID).To(Equal("req-7"))
		Expect(h.call("GET", "/users/me", "", "X-Request-Id", "two words").header.Get("X-Request-Id")).To(HaveLen(36))
	})

	It("shows the journal with its actors to operators alone, and to a bound one his exchange", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_component_refs", aRef)
		actors := func(name, query string) []any {
			var all []any
			for _, item := range h.callAs(name, "GET", "/audit"+query, "").object()["items"].([]any) {
				entry := item.(map[string]any)
				all = append(all, entry["actor"].(string)+" "+entry["subject"].(string))
			}
			return all
		}
		Expect(actors("operator", "")).To(Equal([]any{"admin ref/overseer", "admin exchange/2", "admin exchange/1"}))
		Expect(actors("operator", "?actor=admin&limit=1&cursor=3")).To(Equal([]any{"admin exchange/2"}))
		Expect(actors("operator", "?actor=operator")).To(BeEmpty())
		Expect(actors("foreign-operator", "")).To(Equal([]any{"admin exchange/2"}))
		for _, name := range []string{"viewer", "service"} {
			Expect(h.callAs(name, "GET", "/audit", "").status).To(BeElementOf(403, 404), name)
		}
		events := h.callAs("viewer", "GET", "/events?actor=operator", "")
		Expect(events.object()["items"]).To(HaveLen(3), "nobody may find out who by asking")
		Expect(events.body).NotTo(ContainSubstring("admin"))
	})

	It("tells readers of an upgrade who requested it, and of nobody else who acted", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", aComponent)
		place := h.callAs("operator", "POST", "/system_components/1/upgrade", "").header.Get("Location")
		_, err := h.db.Exec(`UPDATE upgrades SET state = 'in_progress', phase = 1, step = 'deploy'`)
		Expect(err).NotTo(HaveOccurred())
		h.ok(200, "POST", place+"/cancel", "{}")
		for _, path := range []string{"/events", place, "/system_components/1", "/system_events"} {
			seen := h.callAs("viewer", "GET", path, "")
			Expect(seen.status).To(Equal(200))
			Expect(seen.body).To(ContainSubstring("canceled by an operator"), path)
			Expect(seen.body).NotTo(Or(ContainSubstring("admin"), ContainSubstring(`"actor"`)), path)
			Expect(strings.Count(seen.body, `"operator"`)).
				To(Equal(strings.Count(seen.body, `"requested_by":"operator"`)+strings.Count(seen.body, `"cause":"operator"`)),
					path)
		}
		Expect(h.callAs("viewer", "GET", place, "").object()).To(HaveKeyWithValue("requested_by", "operator"))
		Expect(h.call("GET", "/audit?actor=admin&subject="+strings.TrimPrefix(strings.Replace(place, "upgrades", "upgrade",
			1), "/"), "").object()["items"]).To(
			ConsistOf(HaveKeyWithValue("code", "canceled")))
	})

	It("measures requests by route, not by path", func() {
		registry := prometheus.NewRegistry()
		h := start(func(c *api.Config) { c.Metrics = registry })
		h.call("GET", "/system_components/1", "")
		h.call("GET", "/system_components/2", "")
		h.call("GET", "/nothing/3", "")
		Eventually(func() (int, error) {
			return testutil.GatherAndCount(registry, "openaperture_http_request_duration_seconds")
		}).Should(Equal(2))
		families, err := registry.Gather()
		Expect(err).NotTo(HaveOccurred())
		Expect(families[0].String()).To(ContainSubstring("GET /system_components/{id}"))
	})

	It("lists whole unless a limit is given", func() {
		h := start()
		for _, t := range []string{"c", "a", "b"} {
			h.ok(201, "POST", "/system_component_refs", strings.ReplaceAll(aRef, "overseer", t))
		}
		types := func(query string) (out []any) {
			for _, o := range h.ok(200, "GET", "/system_component_refs"+query, "").objects() {
				out = append(out, o["type"])
			}
			return out
		}
		Expect(types("")).To(Equal([]any{"c", "a", "b"}), "by id")
		Expect(types("?limit=2")).To(Equal([]any{"c", "a"}))
		Expect(types("?limit=1000000000")).To(HaveLen(3))
		for _, wrong := range []string{"0", "-1", "x", "99999999999"} {
			Expect(h.call("GET", "/system_component_refs?limit="+wrong, "").status).To(Equal(400), wrong)
		}
	})

	It("shows no internal text when the database is away", func() {
		h := startOn(database.Open(1))
		Expect(h.db.Close()).To(Succeed())
		a := h.call("GET", "/system_component_refs", "")
		Expect(a.status).To(BeElementOf(500, 503))
		Expect(a.body).NotTo(ContainSubstring("sql"))
		Expect(h.call("GET", "/status", "").status).To(Equal(200))
	})

	It("survives a client that hangs up in the middle of a body", func() {
		h := start()
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		Expect(err).NotTo(HaveOccurred())
		_, err = fmt.Fprintf(conn, "POST /system_component_refs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+
			"%s\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n%s",
			tokenOf("admin"), aRef)
		Expect(err).NotTo(HaveOccurred())
		Expect(conn.Close()).To(Succeed())
		Expect(h.ok(200, "GET", "/system_component_refs", "").body).To(Equal("[]"))
	})
})

func multipart(pairs ...string) string {
	var b bytes.Buffer
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString("--X\r\nContent-Disposition: form-data; name=\"" + pairs[i] + "\"\r\n\r\n" + pairs[i+1] + "\r\n")
	}
	b.WriteString("--X--\r\n")
	return b.String()
}
