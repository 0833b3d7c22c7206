package deploy_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy"
	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("Confirmed work", func() {
	done := messages.Result{EventType: messages.EventMilestoneCompleted}
	failed := messages.Result{EventType: messages.EventMilestoneFailed}
	restored := messages.Result{EventType: messages.EventMilestoneFailed, Touched: true, Restored: true}
	halfDone := messages.Result{EventType: messages.EventMilestoneFailed, Touched: true}
	shown := func(state string, settled bool, token int64) *managerapi.OrderView {
		return &managerapi.OrderView{State: state, Settled: settled, Token: token}
	}
	young, old := 59*time.Second, time.Minute

	DescribeTable("is kept, dropped or undone",
		func(want, componentType string, r messages.Result, age time.Duration, view *managerapi.OrderView) {
			Expect(deploy.Settled(componentType, r, age, view)).To(Equal(want))
		},
		Entry("manager: settled", "drop", "manager", done, young, shown("completed", true, 5)),
		Entry("manager: settled late, but before anybody asked", "drop", "manager", done, old, shown("completed", true, 5)),
		Entry("manager: learned and not proven", "keep", "manager", done, young, shown("completed", false, 5)),
		Entry("manager: not learned", "keep", "manager", done, young, shown("claimed", false, 5)),
		Entry("manager: does not answer", "keep", "manager", done, young, nil),
		Entry("manager: learned and never proven", "undo", "manager", done, old, shown("completed", false, 5)),
		Entry("manager: never learned", "undo", "manager", done, old, shown("claimed", false, 5)),
		Entry("manager: never answers", "undo", "manager", done, old, nil),
		Entry("manager: taken over", "drop", "manager", done, old, shown("claimed", false, 6)),
		Entry("manager: a failed deploy that touched nothing", "keep", "manager", failed, old, nil),
		Entry("manager: a failed deploy that put back what it had touched", "keep", "manager", restored, old, nil),
		// its result may have no reader: who would read it is what it has left half done
		Entry("manager: a failed deploy that is half done", "undo", "manager", halfDone, old, nil),
		Entry("manager: the same, not learned by one that answers", "undo", "manager", halfDone, old,
			shown("claimed", false, 5)),
		Entry("manager: the same, before its time", "keep", "manager", halfDone, young, nil),
		Entry("manager: a failed deploy that was learned", "drop", "manager", failed, young, shown("failed", false, 5)),
		Entry("manager: a half done deploy that was learned", "drop", "manager", halfDone, old, shown("failed", false, 5)),
		Entry("another type: a failed deploy that is half done", "keep", "overseer", halfDone, old, nil),
		Entry("another type: ended", "drop", "overseer", done, young, shown("completed", false, 5)),
		Entry("another type: closed", "drop", "overseer", done, young, shown("closed", false, 5)),
		Entry("another type: not learned", "keep", "overseer", done, old, shown("claimed", false, 5)),
		Entry("another type: open again", "keep", "overseer", done, old, shown("open", false, 5)),
		Entry("another type: does not answer", "keep", "overseer", done, old, nil),
		Entry("another type: taken over", "drop", "overseer", done, old, shown("open", false, 6)),
	)
})

var _ = Describe("A result that does not fit into a message", func() {
	DescribeTable("leaves out what is least needed, and keeps the verdict", func(replaced int, kept bool) {
		r := messages.Result{EventType: messages.EventMilestoneFailed, OrderID: "o", WorkflowID: "w", Attempt: 1, Token: 1,
			Cause: messages.CauseVersion, Reason: "deploy_unhealthy",
			Message: strings.Repeat("m", 300_000), Log: strings.Repeat("l", 300_000), Touched: true,
			Replaced: messages.Distinct([]messages.UnitDefinition{{Name: "a",
				Options: []messages.Option{{Section: "S", Name: "N", Value: strings.Repeat("v", replaced)}}}})}
		body, err := deploy.Encode(r)
		Expect(err).NotTo(HaveOccurred())
		Expect(len(body)).To(BeNumerically("<=", messages.MaxBody))
		got, _, err := messages.DecodeResult(body)
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{got.Reason, got.Touched, got.Token}).To(Equal([]any{"deploy_unhealthy", true, int64(1)}))
		if !kept {
			r.Replaced = nil
		}
		Expect(got.Replaced).To(Equal(r.Replaced))
	},
		Entry("with what was replaced", 190_000, true),
		Entry("without even that", 300_000, false),
	)
})
