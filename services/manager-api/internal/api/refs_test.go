package api_test

import (
	"context"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// stamped matches the predecessor's timestamps.
const stamped = `^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ` +
	`\d{4} \d\d:\d\d:\d\d UTC$`

var _ = Describe("/system_component_refs", func() {
	It("creates, shows, replaces and deletes", func() {
		h := start()
		a := h.ok(201, "POST", "/system_component_refs", aRef)
		Expect(a.header.Get("Location")).To(Equal("/system_component_refs/overseer"))
		Expect(a.body).To(BeEmpty())
		shown := h.ok(200, "GET", "/system_component_refs/overseer", "").object()
		Expect(shown).To(And(HaveKeyWithValue("id", 1.0), HaveKeyWithValue("source_repo_git_ref", "v2"),
			HaveKeyWithValue("auto_upgrade_enabled", true)))
		Expect(shown["inserted_at"]).To(MatchRegexp(stamped))
		Expect(shown["updated_at"]).To(MatchRegexp(stamped))

		b := h.ok(204, "PUT", "/system_component_refs/overseer", `{"source_repo":"git/o","source_repo_git_ref":"v3",
			"auto_upgrade_enabled":"false"}`)
		Expect(b.header.Get("Location")).To(Equal("/system_component_refs/overseer"))
		Expect(h.ok(200, "GET", "/system_component_refs/overseer", "").object()).To(And(
			HaveKeyWithValue("source_repo", "git/o"), HaveKeyWithValue("auto_upgrade_enabled", false)))

		c := h.ok(204, "DELETE", "/system_component_refs/overseer", "")
		Expect(c.header).To(HaveKeyWithValue("Location", []string{""}), "present but empty")
		Expect(h.ok(404, "GET", "/system_component_refs/overseer", "").body).To(
			MatchJSON(`{"errors":[{"message":"SystemComponentRef \"overseer\" was not found"}]}`))
		Expect(h.journal("ref/overseer")).To(Equal([]string{"ref_created", "ref_changed", "ref_deleted"}))
	})

	It("keeps whether a new commit is followed until that is stated, and null takes it back (fault 20)", func() {
		h := start()
		h.ok(201, "POST", "/system_component_refs", aRef)
		follow := func() any { return h.ok(200, "GET", "/system_component_refs/overseer", "").object()["follow"] }
		put := func(more string) {
			GinkgoHelper()
			h.ok(204, "PUT", "/system_component_refs/overseer", strings.TrimSuffix(aRef, "}")+more+"}")
		}
		Expect(follow()).To(BeNil())
		put(`,"follow":true`)
		Expect(follow()).To(BeTrue())
		put("")
		Expect(follow()).To(BeTrue(), "a client that does not know the field")
		put(`,"follow":"false"`)
		Expect(follow()).To(BeFalse())
		put(`,"follow":null`)
		Expect(follow()).To(BeNil())
		Expect(h.call("PUT", "/system_component_refs/overseer", strings.TrimSuffix(aRef, "}")+`,"follow":"perhaps"}`).status).
			To(Equal(400))
		h.ok(204, "DELETE", "/system_component_refs/overseer", "")
		h.ok(201, "POST", "/system_component_refs", strings.TrimSuffix(aRef, "}")+`,"follow":true}`)
		Expect(follow()).To(BeTrue())
	})

	It("leaves updated_at and the journal alone when nothing changed", func() {
		h := start()
		h.ok(201, "POST", "/system_component_refs", aRef)
		tag := h.ok(200, "GET", "/system_component_refs/overseer", "").header.Get("ETag")
		h.ok(204, "PUT", "/system_component_refs/overseer", aRef)
		Expect(h.ok(200, "GET", "/system_component_refs/overseer", "").header.Get("ETag")).To(Equal(tag))
		Expect(h.journal("ref/overseer")).To(Equal([]string{"ref_created"}))
	})

	DescribeTable("refuses, in the predecessor's order", func(method, path, body string, status int, want string) {
		h := start()
		h.ok(201, "POST", "/system_component_refs", aRef)
		a := h.call(method, path, body)
		Expect(a.status).To(Equal(status))
		Expect(a.body).To(MatchJSON(want))
	},
		Entry("no type first", "POST", "/system_component_refs", `{}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponentRef were invalid"},{"type":"type is required"}]}`),
		Entry("an empty type", "POST", "/system_component_refs", `{"type":""}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponentRef were invalid"},{"type":"type is required"}]}`),
		Entry("a type that is no string", "POST", "/system_component_refs", `{"type":7}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponentRef were invalid"},{"type":"is invalid"}]}`),
		Entry("a duplicate before other fields", "POST", "/system_component_refs", `{"type":"overseer"}`, 409,
			`{"errors":[{"message":"A SystemComponentRef \"overseer\" already exists with that identifier"}]}`),
		Entry("other fields last", "POST", "/system_component_refs", `{"type":"manager","source_repo":3}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponentRef \"manager\" were invalid"},
				{"source_repo":"is invalid"},{"source_repo_git_ref":"can't be blank"},{"auto_upgrade_enabled":"can't be blank"}]}`),
		Entry("an empty repo", "POST", "/system_component_refs", `{"type":"manager","source_repo":"",
			"source_repo_git_ref":"v","auto_upgrade_enabled":true}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponentRef \"manager\" were invalid"},
				{"source_repo":"should be at least 1 character"}]}`),
		Entry("a PUT of what is not there, whatever its fields", "PUT", "/system_component_refs/none", `{}`, 404,
			`{"errors":[{"message":"SystemComponentRef \"none\" was not found"}]}`),
		Entry("a PUT without fields", "PUT", "/system_component_refs/overseer", `{"auto_upgrade_enabled":null}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponentRef \"overseer\" were invalid"},
				{"source_repo":"can't be blank"},{"source_repo_git_ref":"can't be blank"},
				{"auto_upgrade_enabled":"can't be blank"}]}`),
		Entry("a DELETE of what is not there", "DELETE", "/system_component_refs/none", ``, 404,
			`{"errors":[{"message":"SystemComponentRef \"none\" was not found"}]}`),
	)

	It("makes one of twenty at once, and nineteen conflicts (defect 9)", func() {
		h := start()
		Expect(atOnce(20, func() int { return h.call("POST", "/system_component_refs", aRef).status })).
			To(Equal(map[int]int{201: 1, 409: 19}))
	})
})

// atOnce counts the results of n calls that run together.
func atOnce(n int, call func() int) map[int]int {
	counts, lock, all := map[int]int{}, sync.Mutex{}, sync.WaitGroup{}
	for range n {
		all.Go(func() {
			defer GinkgoRecover()
			status := call()
			lock.Lock()
			defer lock.Unlock()
			counts[status]++
		})
	}
	all.Wait()
	return counts
}

// trigger disturbs the database with a trigger until untrigger, or the spec's end.
func trigger(h *harness, body, when string) {
	GinkgoHelper()
	_, err := h.db.Exec(`CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ ` + body +
		` $$; CREATE TRIGGER disturb ` + when + ` EXECUTE FUNCTION disturb()`)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(untrigger, h)
}

func untrigger(h *harness) {
	GinkgoHelper()
	_, err := h.db.Exec(`DROP FUNCTION IF EXISTS disturb CASCADE`)
	Expect(err).NotTo(HaveOccurred())
}

var _ = Describe("If-Match and Idempotency-Key", func() {
	DescribeTable("If-Match", func(header func(tag string) string, want int) {
		h := start()
		h.ok(201, "POST", "/system_component_refs", aRef)
		tag := h.ok(200, "GET", "/system_component_refs/overseer", "").header.Get("ETag")
		a := h.call("PUT", "/system_component_refs/overseer", strings.ReplaceAll(aRef, "v2", "v3"), "If-Match", header(tag))
		Expect(a.status).To(Equal(want), a.body)
	},
		Entry("of the current version", func(tag string) string { return tag }, 204),
		Entry("of one of several", func(tag string) string { return `"x", ` + tag }, 204),
		Entry("of any version", func(string) string { return "*" }, 204),
		Entry("of an old version (F10)", func(string) string { return `"0123456789"` }, 412),
	)

	It("lets one of ten conditional changes through, for components too", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", aComponent)
		tag := h.ok(200, "GET", "/system_components/1", "").header.Get("ETag")
		counts := atOnce(10, func() int {
			return h.call("PUT", "/system_components/1", strings.ReplaceAll(aComponent, "manual", "hourly"), "If-Match",
				tag).status
		})
		Expect(counts).To(Equal(map[int]int{204: 1, 412: 9}))
		Expect(h.call("DELETE", "/system_components/1", "", "If-Match", tag).status).To(Equal(412))
	})

	It("is not disturbed by an automatic check, but by a change of status", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", aComponent)
		tag := h.ok(200, "GET", "/system_components/1", "").header.Get("ETag")
		_, err := h.db.Exec(`UPDATE system_components SET last_check_at = now(), last_verdict = 'already_latest',
			next_check_at = now(), updated_at = now()`)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.ok(200, "GET", "/system_components/1", "").object()).
			To(HaveKeyWithValue("last_check", HaveKeyWithValue("verdict", HaveKeyWithValue("code", "already_latest"))))
		Expect(h.call("PUT", "/system_components/1", aComponent, "If-Match", tag).status).To(Equal(204))
		_, err = h.db.Exec(`UPDATE system_components SET status = 'upgrade_failed'`)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.call("PUT", "/system_components/1", aComponent, "If-Match", tag).status).To(Equal(412))
	})

	It("replays the answer for the same key and request, without a second effect", func() {
		h := start()
		first := h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k")
		again := h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k")
		Expect(first.status).To(Equal(201))
		Expect(again.status).To(Equal(201))
		Expect(again.header.Get("Location")).To(Equal("/system_component_refs/overseer"))
		Expect(h.journal("ref/overseer")).To(HaveLen(1))
	})

	It("keeps a refusal as well, in the shape of its family", func() {
		h := start()
		first := h.call("POST", "/system_component_refs", `{}`, "Idempotency-Key", "k")
		again := h.call("POST", "/system_component_refs", `{}`, "Idempotency-Key", "k")
		Expect(first.status).To(Equal(400))
		Expect(again.status).To(Equal(400))
		Expect(again.body).To(Equal(first.body))
	})

	It("refuses the key with another request, and keeps callers apart (F9)", func() {
		h := start()
		h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k")
		Expect(h.call("POST", "/system_component_refs", strings.ReplaceAll(aRef, "v2", "v3"), "Idempotency-Key", "k").status).
			To(Equal(422))
		h.exchanges()
		header, value := as("operator")
		Expect(h.call("POST", "/system_components", aComponent, "Idempotency-Key", "k", header, value).status).To(Equal(201))
	})

	It("has one effect for fifty at once (F9)", func() {
		h := start()
		counts := atOnce(50, func() int {
			return h.call("POST", "/system_component_refs", aRef, "Idempotency-Key",
				"k").status
		})
		Expect(counts[201]).To(BeNumerically(">=", 1))
		Expect(counts[201] + counts[409]).To(Equal(50))
		Expect(h.journal("ref/overseer")).To(HaveLen(1))
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(201))
	})

	DescribeTable("an Idempotency-Key makes one of", func(path, body string) {
		h := start()
		first, again := h.call("POST", path, body, "Idempotency-Key", "k"), h.call("POST", path, body, "Idempotency-Key", "k")
		Expect([]int{first.status, again.status}).To(Equal([]int{201, 201}), first.body+again.body)
		Expect([]string{again.header.Get("Location"), again.body}).
			To(Equal([]string{first.header.Get("Location"), first.body}))
		Expect(h.ok(200, "GET", path, "").objects()).To(HaveLen(1))
	},
		Entry("the exchanges", "/messaging/exchanges", `{"name":"home"}`),
		Entry("the brokers", "/messaging/brokers", `{"name":"b"}`),
		Entry("the clusters", "/clusters", `{"etcd_token":"abc"}`),
		Entry("the workflows", "/workflows", `{"deployment_repo":"d"}`),
		Entry("the events", "/system_events", `{"type":"t","severity":"info"}`),
		Entry("the users", "/users", `{"first_name":"A","last_name":"B","email":"a@b.example"}`),
		Entry("the refs", "/system_component_refs", aRef),
	)

	It("does not repeat what lost its COMMIT: nobody knows its effect", func() {
		h := start()
		_, err := h.db.Exec(`CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM
			pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
			CREATE CONSTRAINT TRIGGER lose AFTER INSERT
			ON system_component_refs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lose()`)
		Expect(err).NotTo(HaveOccurred())
		mend := func() { _, err = h.db.Exec(`DROP FUNCTION IF EXISTS lose CASCADE`); Expect(err).NotTo(HaveOccurred()) }
		DeferCleanup(mend)
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(503))
		mend()
		for _, age := range []string{"0", "10 minutes"} {
			_, err = h.db.Exec(`UPDATE idempotency_keys SET created_at = now() - $1::interval`, age)
			Expect(err).NotTo(HaveOccurred())
			again := h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k")
			Expect(again.status).To(Equal(409))
			Expect(again.body).To(ContainSubstring("look whether it has had its effect before you use another key"))
		}
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "other").status).To(Equal(201))
	})

	It("may be tried again after a failure without effect", func() {
		h := start()
		_, err := h.db.Exec(`ALTER TABLE system_component_refs RENAME TO gone`)
		Expect(err).NotTo(HaveOccurred())
		broken := h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k")
		_, err = h.db.Exec(`ALTER TABLE gone RENAME TO system_component_refs`)
		Expect(err).NotTo(HaveOccurred())
		Expect(broken.status).To(Equal(500))
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(201))
	})

	DescribeTable("settles a key later where the database does not let it at once:", func(failing bool, want int) {
		h := start()
		gone := func() {
			_, err := h.db.Exec(`ALTER TABLE system_component_refs RENAME TO gone`)
			Expect(err).NotTo(HaveOccurred())
		}
		back := func() {
			_, err := h.db.Exec(`ALTER TABLE gone RENAME TO system_component_refs`)
			Expect(err).NotTo(HaveOccurred())
		}
		trigger(h, `BEGIN RAISE EXCEPTION 'not now'; END`, `BEFORE UPDATE OR DELETE ON idempotency_keys FOR EACH ROW`)
		if failing {
			gone()
		}
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(want))
		if failing {
			back()
		}
		Expect(h.engine.Prune(context.Background())).NotTo(Succeed())
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(409))
		untrigger(h)
		Expect(h.engine.Prune(context.Background())).To(Succeed())
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(201))
		Expect(h.journal("ref/overseer")).To(HaveLen(1))
	},
		Entry("of a request without effect", true, 500),
		Entry("of one with an answer", false, 201),
	)

	It("gives a key back whose taking lost its COMMIT: nothing was done under it", func() {
		h := start()
		taken := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
		trigger(h, `BEGIN IF TG_WHEN = 'BEFORE' THEN NEW.created_at := '`+taken+`'; RETURN NEW; END IF;
			PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END`,
			`BEFORE INSERT ON idempotency_keys FOR EACH ROW`)
		_, err := h.db.Exec(`CREATE CONSTRAINT TRIGGER lose AFTER INSERT
			ON idempotency_keys DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION disturb()`)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(503))
		untrigger(h)
		// the COMMIT has come through
		_, err = h.db.Exec(`INSERT INTO idempotency_keys (caller, key, request_hash, created_at)
			VALUES ('admin', 'k', '', $1)`, taken)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.engine.Prune(context.Background())).To(Succeed())
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(201))
	})

	It("leaves a key to who has taken it since", func() {
		h := start()
		take := func() (db.Key, error) {
			k, _, err := h.memory.TakeKey(context.Background(), "admin", "k", []byte("request"))
			return k, err
		}
		first, err := take()
		Expect(err).NotTo(HaveOccurred())
		Expect(h.memory.SettleKey(context.Background(), first, nil)).To(Succeed())
		_, err = take()
		Expect(err).NotTo(HaveOccurred())
		Expect(h.memory.SettleKey(context.Background(), first, nil)).To(Succeed(),
			"once more, as its COMMIT may have been lost")
		_, err = take()
		Expect(fault.CodeOf(err)).To(Equal(db.CodeKeyUnanswered))
	})

	It("looks at no other keys for one", func() {
		h := start()
		_, err := h.db.Exec(`INSERT INTO idempotency_keys (caller, key, request_hash, created_at)
			SELECT 'admin', n::text, '', now() - interval '25 hours' FROM generate_series(1, 9) n`)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "1").status).To(Equal(201))
		var n int
		Expect(h.db.Get(&n, `SELECT count(*) FROM idempotency_keys`)).To(Succeed())
		Expect(n).To(Equal(9))
	})

	It("forgets a key after a day (F9)", func() {
		h := start()
		h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k")
		_, err := h.db.Exec(`UPDATE idempotency_keys SET created_at = now() - interval '25 hours'`)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.call("POST", "/system_component_refs", aRef, "Idempotency-Key", "k").status).To(Equal(409),
			"a new effect is tried: the ref exists")
	})
})
