package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/openaperture/openaperture/pkg/fault"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var errSecret = errors.New("dial 10.0.0.7: refused")

var _ = Describe("An error with a kind", func() {
	DescribeTable("is recognised through every wrapping",
		func(err error, kind fault.Kind) {
			Expect(fault.KindOf(err)).To(Equal(kind))
			Expect(fault.KindOf(fmt.Errorf("save workflow 7: %w", err))).To(Equal(kind))
			Expect(fault.Is(err, kind)).To(BeTrue())
		},
		Entry("made new", fault.New(fault.NotFound, "no component %d", 3), fault.NotFound),
		Entry("around a cause", fault.Wrap(fault.Unavailable, io.EOF, "the database does not answer"), fault.Unavailable),
		Entry("the outermost of two counts",
			fault.Wrap(fault.Conflict, fault.New(fault.NotFound, "x"), "y"), fault.Conflict),
		Entry("a deadline is unavailable", context.DeadlineExceeded, fault.Unavailable),
		Entry("a cancelled context is unavailable", context.Canceled, fault.Unavailable),
		Entry("an unknown error is internal", io.ErrUnexpectedEOF, fault.Internal),
	)

	It("is never matched by a missing error", func() {
		Expect(fault.Is(nil, fault.Internal)).To(BeFalse())
	})

	It("keeps code and fields in copies, not in the original", func() {
		plain := fault.New(fault.Invalid, "the component is not valid")
		full := plain.WithCode("invalid_component").WithFields(fault.Field{Name: "type", Message: "is required"})
		Expect(fault.CodeOf(fmt.Errorf("create: %w", full))).To(Equal("invalid_component"))
		Expect(full.Fields).To(HaveLen(1))
		Expect(plain.Code).To(BeEmpty())
		Expect(plain.Fields).To(BeEmpty())
		Expect(fault.CodeOf(io.EOF)).To(BeEmpty())
	})

	It("says message and cause to the log and finds the cause", func() {
		err := fault.Wrap(fault.Unavailable, errSecret, "the broker of exchange %d does not answer", 4)
		Expect(err).To(MatchError("the broker of exchange 4 does not answer: dial 10.0.0.7: refused"))
		Expect(errors.Is(err, errSecret)).To(BeTrue())
	})

	It("takes a %w of New as cause without repeating its text", func() {
		err := fault.New(fault.Invalid, "read page: %w", io.EOF)
		Expect(err).To(MatchError("read page: EOF"))
		Expect(errors.Is(err, io.EOF)).To(BeTrue())
	})

	It("stays an error when it wraps nothing", func() {
		var err error = fault.Wrap(fault.Internal, nil, "commit")
		Expect(err).To(MatchError("commit"))
		Expect(errors.Unwrap(err)).ToNot(HaveOccurred())
	})
})

var _ = Describe("What a client sees", func() {
	DescribeTable("is the message without the cause",
		func(err error, want fault.View) { Expect(fault.Public(err)).To(Equal(want)) },
		Entry("a kind with a cause", fmt.Errorf("pass: %w", fault.Wrap(fault.Unavailable, errSecret, "try later")),
			fault.View{Kind: fault.Unavailable, Message: "try later"}),
		Entry("code and fields", fault.New(fault.Conflict, "taken").WithCode("superseded").
			WithFields(fault.Field{Name: "token", Message: "is old"}),
			fault.View{Kind: fault.Conflict, Code: "superseded", Message: "taken",
				Fields: []fault.Field{{Name: "token", Message: "is old"}}}),
		Entry("an unknown error shows nothing of itself", errSecret,
			fault.View{Kind: fault.Internal, Message: "internal error"}),
		Entry("an internal error shows nothing of itself",
			fault.New(fault.Internal, "password x").WithCode("c").WithFields(fault.Field{Name: "f", Message: "m"}),
			fault.View{Kind: fault.Internal, Message: "internal error"}),
		Entry("a deadline", fmt.Errorf("query: %w", context.DeadlineExceeded),
			fault.View{Kind: fault.Unavailable, Message: "the request did not finish in time"}),
	)
})

var _ = Describe("HTTP", func() {
	DescribeTable("answers each kind with its status and reads it back",
		func(kind fault.Kind, status int, name string) {
			Expect(fault.HTTPStatus(kind)).To(Equal(status))
			Expect(kind.String()).To(Equal(name))
			if kind != fault.Internal {
				Expect(fault.FromHTTPStatus(status)).To(Equal(kind))
			}
		},
		Entry("not found", fault.NotFound, http.StatusNotFound, "not_found"),
		Entry("conflict", fault.Conflict, http.StatusConflict, "conflict"),
		Entry("invalid", fault.Invalid, http.StatusBadRequest, "invalid"),
		Entry("unauthorized", fault.Unauthorized, http.StatusUnauthorized, "unauthorized"),
		Entry("forbidden", fault.Forbidden, http.StatusForbidden, "forbidden"),
		Entry("too large", fault.TooLarge, http.StatusRequestEntityTooLarge, "too_large"),
		Entry("unavailable", fault.Unavailable, http.StatusServiceUnavailable, "unavailable"),
		Entry("internal", fault.Internal, http.StatusInternalServerError, "internal"),
	)

	DescribeTable("reads other statuses",
		func(status int, kind fault.Kind) { Expect(fault.FromHTTPStatus(status)).To(Equal(kind)) },
		Entry("410", http.StatusGone, fault.NotFound),
		Entry("412", http.StatusPreconditionFailed, fault.Conflict),
		Entry("422", http.StatusUnprocessableEntity, fault.Invalid),
		Entry("405", http.StatusMethodNotAllowed, fault.Invalid),
		Entry("408 may pass later", http.StatusRequestTimeout, fault.Unavailable),
		Entry("429 may pass later", http.StatusTooManyRequests, fault.Unavailable),
		Entry("500 of the server may pass later", http.StatusInternalServerError, fault.Unavailable),
		Entry("502", http.StatusBadGateway, fault.Unavailable),
		Entry("501 never passes", http.StatusNotImplemented, fault.Internal),
		Entry("200 is no error", http.StatusOK, fault.Internal),
	)

	It("names every kind differently", func() {
		seen := map[string]bool{}
		for _, k := range fault.Kinds() {
			seen[k.String()] = true
		}
		Expect(seen).To(HaveLen(8))
		Expect(fault.Kind(99).String()).To(Equal("internal"))
		Expect(fault.HTTPStatus(fault.Kind(99))).To(Equal(http.StatusInternalServerError))
	})
})
