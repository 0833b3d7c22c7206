package db_test

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

var _ = Describe("The outbox", func() {
	var d *db.DB
	var exchanges []component.ExchangeID
	BeforeEach(func() {
		d, exchanges = newDB(), nil
		Expect(database.Pool.Select(&exchanges, `
			INSERT INTO messaging_exchanges (name, routing_key_fragment, routing_key, root_exchange_name)
			VALUES ('here', 'here', 'here', 'here') RETURNING id`)).To(Succeed())
	})
	enqueue := func(queue messages.Queue, body any) error {
		return d.Tx(ctx(), func(tx *sqlx.Tx) error {
			return db.Enqueue(ctx(), tx, db.NewMessage{ExchangeID: exchanges[0], Queue: queue, Type: string(queue), Body: body})
		})
	}
	due := func() []db.DueMessage {
		GinkgoHelper()
		list, err := d.DueMessages(ctx(), exchanges, 10, time.Minute)
		Expect(err).NotTo(HaveOccurred())
		return list
	}

	It("hands a message to one relay at a time, in order per queue", func() {
		Expect(enqueue(messages.QueueOverseer, 1)).To(Succeed())
		Expect(enqueue(messages.QueueDeployOA, 2)).To(Succeed())
		first := due()
		Expect(first).To(HaveExactElements(HaveField("Body", json.RawMessage("1")), HaveField("Body", json.RawMessage("2"))))
		Expect(due()).To(BeEmpty(), "a relay has them for a minute")
		Expect(enqueue(messages.QueueOverseer, 3)).To(Succeed())
		Expect(due()).To(BeEmpty(), "the one before it in its queue is in flight")
		Expect(d.MessageNotSent(ctx(), first[0].ID, "returned", 0)).To(Succeed())
		again := due()
		Expect(again).To(HaveExactElements(HaveField("Body", json.RawMessage("1")), HaveField("Body", json.RawMessage("3"))))
		Expect([]any{again[0].ID, again[0].Attempts}).To(Equal([]any{first[0].ID, 2}))
		Expect(d.MessagesConfirmed(ctx(), []string{again[0].ID, again[1].ID})).To(Succeed())
		Expect(d.Backlogs(ctx())).To(HaveExactElements(HaveField("Waiting", 1)))
	})

	It("takes no message that a broker would not take", func() {
		Expect(fault.Is(enqueue(messages.QueueOverseer, strings.Repeat("x", 256<<10)), fault.TooLarge)).To(BeTrue())
		Expect(due()).To(BeEmpty())
	})
})
