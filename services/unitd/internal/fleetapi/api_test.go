package fleetapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/services/unitd/internal/fleetapi"
)

const sleeper = "Service.ExecStart=/bin/sleep 3600"

var _ = Describe("Fencing tokens", func() {
	It("refuse a lower one on PUT and DELETE, also after the unit was deleted (D18)", func() {
		h := serve("")
		Expect(h.put("x.service", "loaded", "7", sleeper).Status).To(Equal(201))
		refused := h.put("x.service", "inactive", "5")
		Expect(refused.Status).To(Equal(409))
		Expect(refused.Body).
			To(Equal(`{"error":{"code":409,"message":"superseded: token 5 is lower than 7 held by unit x.service"}}`))
		Expect(h.do("DELETE", "/fleet/v1/units/x.service", "", fleetapi.TokenHeader, "6").Status).To(Equal(409))
		Expect(h.do("DELETE", "/fleet/v1/units/x.service", "", fleetapi.TokenHeader, "8").Status).To(Equal(204))
		Expect(h.put("x.service", "loaded", "7", sleeper).Body).To(ContainSubstring("token 7 is lower than 8"))
		Expect(h.put("x.service", "loaded", "8", sleeper).Status).To(Equal(201))
	})

	It("are not asked of who sends none, and are then kept", func() {
		h := serve("")
		Expect(h.put("x.service", "loaded", "7", sleeper).Status).To(Equal(201))
		Expect(h.put("x.service", "inactive", "").Status).To(Equal(204))
		Expect(h.put("x.service", "loaded", "6").Status).To(Equal(409))
	})

	DescribeTable("must be positive numbers", func(token string) {
		Expect(serve("").put("x.service", "loaded", token, sleeper).Status).To(Equal(400))
	},
		Entry("negative", "-1"), Entry("text", "seven"), Entry("too large", "9223372036854775808"))

	It("let the highest win a race, whatever the order (I3)", func() {
		h := serve("")
		Expect(h.put("x.service", "inactive", "1", sleeper).Status).To(Equal(201))
		var all sync.WaitGroup
		var accepted atomic.Int64
		for token := 2; token <= 40; token++ {
			all.Go(func() {
				defer GinkgoRecover()
				answer := h.put("x.service", "inactive", fmt.Sprint(token), fmt.Sprintf("Service.ExecStart=/bin/sleep %d", token))
				Expect(answer.Status).To(BeElementOf(201, 409))
				if answer.Status == 201 {
					accepted.Add(1)
				}
			})
		}
		all.Wait()
		Expect(accepted.Load()).To(BeNumerically(">=", 1))
		Expect(h.do("GET", "/fleet/v1/units/x.service", "").Body).To(ContainSubstring("/bin/sleep 40"))
		Expect(h.put("x.service", "inactive", "39").Status).To(Equal(409))
	})

	It("in the options are stored without a restart", func() {
		h := serve("")
		Expect(h.put("x.service", "launched", "", sleeper, "X-OpenAperture.Token=5").Status).To(Equal(201))
		Eventually(h.active("x.service")).Should(Equal("active"))
		before := h.state("x.service")
		Expect(h.put("x.service", "launched", "", sleeper, "X-OpenAperture.Token=7").Status).To(Equal(204))
		Expect(h.do("GET", "/fleet/v1/units/x.service", "").Body).To(ContainSubstring(`"value":"7"`))
		Consistently(func() int { return h.state("x.service").MainPID }, "300ms").Should(Equal(before.MainPID))
		Expect(h.state("x.service").Hash).To(Equal(before.Hash))
	})
})

var _ = Describe("Waiting for a state", func() {
	index := func(a answer) string { return a.Header.Get(fleetapi.IndexHeader) }

	It("answers at once when the unit has changed since, and at the change when not", func() {
		h := serve("")
		unknown := h.do("GET", "/fleet/v1/state?unitName=x.service", "")
		Expect(unknown.Body).To(Equal("{}"))
		news := make(chan answer, 1)
		go func() {
			defer GinkgoRecover()
			news <- h.do("GET", "/fleet/v1/state?unitName=x.service&wait=30s&index="+index(unknown), "")
		}()
		Consistently(news, "100ms").ShouldNot(Receive())
		h.put("x.service", "loaded", "", sleeper)
		var first answer
		Eventually(news).Should(Receive(&first))
		Expect(first.Body).To(ContainSubstring(`"systemdActiveState":"inactive"`))
		Expect(h.do("GET", "/fleet/v1/state?unitName=x.service&wait=30s&index=1", "").Body).To(Equal(first.Body))

		go func() {
			defer GinkgoRecover()
			seen := index(first)
			for {
				a := h.do("GET", "/fleet/v1/state?unitName=x.service&wait=10s&index="+seen, "")
				if seen = index(a); strings.Contains(a.Body, `"active"`) {
					news <- a
					return
				}
			}
		}()
		h.put("x.service", "launched", "")
		Eventually(news).WithTimeout(5 * time.Second).Should(Receive())
	})

	It("ends with the time asked for, and with the server", func() {
		h := serve("")
		h.put("x.service", "loaded", "", sleeper)
		Eventually(h.active("x.service")).Should(Equal("inactive"))
		seen := index(h.do("GET", "/fleet/v1/state?unitName=x.service", ""))
		begun := time.Now()
		again := h.do("GET", "/fleet/v1/state?unitName=x.service&wait=100ms&index="+seen, "")
		Expect(time.Since(begun)).To(BeNumerically(">=", 100*time.Millisecond))
		Expect(index(again)).To(Equal(seen))
		ended := make(chan answer, 1)
		go func() {
			defer GinkgoRecover()
			ended <- h.do("GET", "/fleet/v1/state?unitName=x.service&wait=60s&index="+seen, "")
		}()
		Consistently(ended, "50ms").ShouldNot(Receive())
		close(h.stopping)
		Eventually(ended).Should(Receive())
	})

	DescribeTable("is refused", func(query, message string) {
		a := serve("").do("GET", "/fleet/v1/state?"+query, "")
		Expect(a.Status).To(Equal(400))
		Expect(a.Body).To(ContainSubstring(message))
	},
		Entry("without a unit", "index=1&wait=1s", "wait and index need unitName"),
		Entry("with an index that is no number", "unitName=x.service&index=a&wait=1s", "is no number"),
		Entry("with a wait that is no duration", "unitName=x.service&index=1&wait=5", "is no duration"))
})

var _ = Describe("The API", func() {
	It("answers 500 to a request that makes it panic, and counts that", func() {
		var panics []string
		ctx := loop.WithPanics(context.Background(), func(p *loop.Panic) { panics = append(panics, p.Part+" "+p.Item) })
		broken := fleetapi.New(fleetapi.Config{Log: zap.NewNop()}) // without a host
		w := httptest.NewRecorder()
		broken.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/fleet/v1/units", nil).WithContext(ctx))
		Expect(w.Code).To(Equal(500))
		Expect(w.Body.String()).To(Equal(`{"error":{"code":500,"message":""}}`))
		Expect(panics).To(HaveExactElements("api GET /fleet/v1/units"))
	})

	It("needs the bearer token on every route where one is configured (F18)", func() {
		h := serve("secret")
		for _, route := range []string{
			"GET /fleet/v1/discovery", "GET /fleet/v1/machines", "GET /fleet/v1/units", "GET /fleet/v1/state",
			"GET /fleet/v1/units/x.service", "PUT /fleet/v1/units/x.service", "DELETE /fleet/v1/units/x.service",
			"GET /openaperture/v1/units/x.service/logs", "GET /", "GET /debug/pprof/", "POST /nowhere",
		} {
			method, path, _ := strings.Cut(route, " ")
			Expect(h.do(method, path, "").Status).To(Equal(401), route)
		}
		for _, header := range []string{"", "Bearer", "Bearer wrong", "Basic secret", "secret"} {
			a := h.do("GET", "/fleet/v1/machines", "", "Authorization", header)
			Expect(a.Status).To(Equal(401), header)
			Expect(a.Header.Get("WWW-Authenticate")).To(Equal("Bearer"))
		}
		Expect(h.do("PUT", "/fleet/v1/units/x.service", "{}").Status).To(Equal(401))
		Expect(h.do("GET", "/fleet/v1/machines", "", "Authorization", "Bearer secret").Status).To(Equal(200))
		Expect(h.do("GET", "/fleet/v1/machines", "", "Authorization", "bearer secret").Status).To(Equal(200))
	})

	DescribeTable("survives garbage (F1)", func(body string, status int, message string) {
		a := serve("").do("PUT", "/fleet/v1/units/x.service", body)
		Expect(a.Status).To(Equal(status), a.Body)
		var failure struct {
			Error struct {
				Code    int
				Message string
			}
		}
		Expect(json.Unmarshal([]byte(a.Body), &failure)).To(Succeed())
		Expect(failure.Error.Code).To(Equal(status))
		Expect(failure.Error.Message).To(ContainSubstring(message))
	},
		Entry("an array", `[]`, 400, "unable to decode body"),
		Entry("null", `null`, 409, "unit does not exist and options field empty"),
		Entry("a number", `17`, 400, "unable to decode body"),
		Entry("no JSON", "\x00\xff{", 400, "unable to decode body"),
		Entry("two values", `{"desiredState":"launched"} {}`, 400, "more than one JSON value"),
		Entry("options that are no list", `{"options":{"a":1}}`, 400, "unable to decode body"),
		Entry("an option that is no object", `{"options":["x"]}`, 400, "unable to decode body"),
		Entry("a value that is no string", `{"options":[{"section":"Service","name":"ExecStart","value":1}]}`, 400,
			"unable to decode body"),
		Entry("deep nesting", strings.Repeat("[", 100_000), 400, "unable to decode body"),
		Entry("more than 1 MiB (F2)", `{"name":"`+strings.Repeat("x", 1<<20)+`"}`, 413, "body exceeds 1 MiB"),
		Entry("a type that cannot be run",
			`{"options":[{"section":"Service","name":"ExecStart","value":"/a"},`+
				`{"section":"Service","name":"Type","value":"forking"}]}`, 400, `Type: "forking" is none of`),
		Entry("an unknown specifier", `{"options":[{"section":"Service","name":"ExecStart","value":"/a %z"}]}`, 400,
			"unknown specifier %z"),
	)

	DescribeTable("refuses names that cannot be run or stored", func(name, message string) {
		a := serve("").put(name, "inactive", "", sleeper)
		Expect(a.Status).To(Equal(400))
		Expect(a.Body).To(ContainSubstring(message))
	},
		Entry("a timer", "x.timer", "only .service units can be run here"),
		Entry("a long one", strings.Repeat("x", 220)+".service", "unit name exceeds 200 characters"))

	DescribeTable("does not know", func(method, path string, status int) {
		Expect(serve("").do(method, path, "").Status).To(Equal(status))
	},
		Entry("a unit name with a slash", "PUT", "/fleet/v1/units/..%2Fx.service", 404),
		Entry("a path below a unit", "GET", "/fleet/v1/units/x.service/y", 404),
		Entry("no unit", "GET", "/fleet/v1/units/", 404),
		Entry("other methods of logs", "PUT", "/openaperture/v1/units/x.service/logs", 405))

	It("shows the last lines of a unit's output, cleaned (G13)", func() {
		h := serve("")
		h.put("x.service", "launched", "", "Service.Type=oneshot",
			`Service.ExecStart=/bin/sh -c 'for i in 1 2 3; do echo line $i; done; `+
				`printf "\\033[31mred\\033[0m\\007 \\033]0;title\\007end\\r\\n"; echo err >&2'`)
		logs := func(query string) string { return h.do("GET", "/openaperture/v1/units/x.service/logs"+query, "").Body }
		Eventually(func() string { return logs("") }).Should(ContainSubstring("ended: success"))
		Expect(logs("")).To(ContainSubstring("line 1\nline 2\nline 3\nred end\nerr\n"))
		Expect(logs("?lines=2")).To(Equal("err\nunitd: ended: success\n"))
		Expect(h.do("GET", "/openaperture/v1/units/x.service/logs?lines=x", "").Status).To(Equal(400))
		Expect(h.do("GET", "/openaperture/v1/units/nope.service/logs", "").Status).To(Equal(404))
	})

	DescribeTable("caps and cleans a line without end, keeps no more of it, and shows what follows (G13)",
		func(piece string) {
			h := serve("")
			h.put("x.service", "launched", "", "Service.Type=oneshot", "Service.ExecStart=/bin/sh -c "+
				`'yes "$(printf "`+piece+`")" | tr -d "\\n" | head -c 100000000'`)
			Eventually(h.active("x.service")).WithTimeout(60 * time.Second).Should(Equal("inactive"))
			body := h.do("GET", "/openaperture/v1/units/x.service/logs?lines=10000", "").Body
			Expect(len(body)).To(And(BeNumerically("<=", 256<<10), BeNumerically(">", 50<<10)))
			Expect(body).To(MatchRegexp("^[xy\ufffd]+\n?unitd: ended: success\n$"))
			var kept int64
			files, err := filepath.Glob(filepath.Join(h.dir, "logs", "x.service", "*"))
			Expect(err).NotTo(HaveOccurred())
			for _, file := range files {
				info, err := os.Stat(file)
				Expect(err).NotTo(HaveOccurred())
				kept += info.Size()
			}
			Expect(kept).To(And(BeNumerically(">", 4<<20), BeNumerically("<=", 9<<20)))
		},
		Entry("of escape sequences and control characters", `\\033[31mx\\007\\233y`),
		Entry("of bytes that are no text", `\\377`),
	)

	It("leaves no goroutine and no descriptor of a unit that was deleted (I11)", func() {
		h := serve("")
		round := func() {
			GinkgoHelper()
			for i := range 10 {
				name := fmt.Sprintf("x%d.service", i)
				Expect(h.put(name, "launched", "", sleeper).Status).To(Equal(201))
				Eventually(h.active(name)).WithTimeout(20 * time.Second).Should(Equal("active"))
				Expect(h.do("DELETE", "/fleet/v1/units/"+name, "").Status).To(Equal(204))
				Eventually(h.active(name)).WithTimeout(20 * time.Second).Should(BeEmpty())
			}
		}
		descriptors := func() int {
			open, err := os.ReadDir("/proc/self/fd")
			Expect(err).NotTo(HaveOccurred())
			return len(open)
		}
		round() // what is opened once and kept
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		goroutines, files := runtime.NumGoroutine(), descriptors()
		round()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		Eventually(runtime.NumGoroutine).WithTimeout(10 * time.Second).Should(BeNumerically("<=", goroutines))
		Eventually(descriptors).WithTimeout(10 * time.Second).Should(BeNumerically("<=", files))
	})

	It("caps a unit's output at 256 KiB per answer and rotates it", func() {
		h := serve("")
		h.put("x.service", "launched", "", "Service.Type=oneshot",
			`Service.ExecStart=/bin/sh -c 'yes 0123456789012345678901234567890123456789 | head -c 9000000'`)
		Eventually(h.active("x.service")).WithTimeout(20 * time.Second).Should(Equal("inactive"))
		body := h.do("GET", "/openaperture/v1/units/x.service/logs?lines=10000", "").Body
		Expect(len(body)).To(And(BeNumerically("<=", 256<<10), BeNumerically(">", 200<<10)))
		Expect(strings.HasSuffix(body, "unitd: ended: success\n")).To(BeTrue())
		Expect(strings.HasPrefix(body, "0123")).To(BeTrue())
	})
})
