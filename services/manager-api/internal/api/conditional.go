package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Codes of the two refusals with a status of their own.
const (
	codePrecondition = "precondition_failed" // 412: If-Match names another version
	codeKeyReused    = db.CodeKeyReused      // 422: the same key with another request
)

// entityTag is the version of a resource: a hash over what of it a change may not overwrite unseen.
func entityTag(state any) string {
	raw, err := json.Marshal(state)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// writeTagged answers with a body and its version.
func writeTagged(w http.ResponseWriter, shown any, tag string) {
	w.Header().Set("ETag", tag)
	writeJSON(w, http.StatusOK, shown)
}

// ifMatch makes the guard of an If-Match header, nil without one.
func ifMatch[T any](r *http.Request, tag func(T) string) db.Guard[T] {
	wanted := r.Header.Get("If-Match")
	if wanted == "" {
		return nil
	}
	return func(row T) error {
		current := tag(row)
		for one := range strings.SplitSeq(wanted, ",") {
			if one = strings.TrimSpace(one); one == "*" || one == current {
				return nil
			}
		}
		return fault.New(fault.Conflict, "it was changed in the meantime: read it again").WithCode(codePrecondition)
	}
}

// maxKey bounds an Idempotency-Key.
const maxKey = 255

// idempotent gives a route the meaning of Idempotency-Key: the same key and request get the first one's answer.
// What failed within the server may be tried again under the same key, unless it may have had its effect: its COMMIT
// was lost, or it panicked, which may be before that or behind it.
func (s *Server) idempotent(rt Route, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		key := r.Header.Get("Idempotency-Key")
		if key == "" {
			return h(w, r)
		}
		if len(key) > maxKey {
			return fault.New(fault.Invalid, "the idempotency key is longer than %d bytes", maxKey)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return fmt.Errorf("read body: %w", err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		caller := callerOf(r.Context()).Name
		taken, kept, err := s.DB.TakeKey(r.Context(), caller, key, requestHash(r, body))
		if err != nil {
			return err
		}
		if kept != nil {
			return replayAnswer(w, kept)
		}
		return s.keepAnswer(rt, h, w, r, taken)
	}
}

func requestHash(r *http.Request, body []byte) []byte {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s %q %q %q\n", r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"),
		r.Header.Get("Prefer"))
	_, _ = h.Write(body)
	return h.Sum(nil)
}

func replayAnswer(w http.ResponseWriter, kept *db.KeptAnswer) error {
	headers := map[string][]string{}
	if err := json.Unmarshal(kept.Headers, &headers); err != nil {
		return fmt.Errorf("read kept headers: %w", err)
	}
	for name, values := range headers {
		w.Header()[name] = values
	}
	w.WriteHeader(kept.Status)
	_, _ = w.Write(kept.Body)
	return nil
}

// keepAnswer runs the handler into memory, keeps its answer and sends it.
func (s *Server) keepAnswer(rt Route, h handler, w http.ResponseWriter, r *http.Request, key db.Key) error {
	answer := &buffer{header: http.Header{}, status: http.StatusOK}
	failure := h(answer, r)
	if failure != nil {
		s.answerError(rt, answer, r, failure)
	}
	// The effect is there whatever became of the client: what is kept must say so.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
	defer cancel()
	if err := s.rememberAnswer(ctx, key, answer, failure); err != nil {
		s.Log.Warn("answer of an idempotency key is not kept yet", zap.String("route", rt.Pattern), zap.Error(err))
	}
	for name, values := range answer.header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body.Bytes())
	return nil
}

// rememberAnswer keeps the answer. What failed within the server had no effect, and the key is free again; of a lost
// COMMIT nobody knows, and the key stays without an answer.
func (s *Server) rememberAnswer(ctx context.Context, key db.Key, a *buffer, failure error) error {
	if fault.CodeOf(failure) == postgres.CodeCommitUnknown {
		return nil
	}
	if a.status >= http.StatusInternalServerError {
		return s.DB.SettleKey(ctx, key, nil)
	}
	headers, err := json.Marshal(a.header)
	if err != nil {
		return err
	}
	return s.DB.SettleKey(ctx, key, &db.KeptAnswer{Status: a.status, Headers: headers, Body: a.body.Bytes()})
}

// buffer is an answer in memory.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }
