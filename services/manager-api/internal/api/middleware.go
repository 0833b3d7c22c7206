package api

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
)

// maxBody is the limit of a request body; more is 413.
const maxBody = 1 << 20

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// beginRequest gives the request an id and the caller's trace; finish measures it.
func (s *Server) beginRequest(w http.ResponseWriter, r *http.Request) (*http.Request, func(*http.Request, *recorder)) {
	started := time.Now()
	id := r.Header.Get("X-Request-Id")
	if !requestIDForm.MatchString(id) {
		id = uuid.Must(uuid.NewV7()).String()
	}
	w.Header().Set("X-Request-Id", id)
	ctx := otel.GetTextMapPropagator().Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := otel.Tracer("manager-api").Start(ctx, r.Method)
	ctx = context.WithValue(ctx, requestIDKey, id)
	return r.WithContext(ctx), func(done *http.Request, rec *recorder) {
		if done.Pattern != "" {
			span.SetName(done.Pattern)
		}
		span.End()
		s.metrics.observe(done.Pattern, rec.code(), time.Since(started))
	}
}

// cleanPath collapses "//", dots and a trailing slash, keeping escapes: //x is /x.
func cleanPath(r *http.Request) {
	cleaned := path.Clean("/" + r.URL.EscapedPath())
	plain, err := url.PathUnescape(cleaned)
	if err != nil {
		return
	}
	r.URL.Path, r.URL.RawPath = plain, cleaned
}

// allowed lists the methods that the path of r has routes for.
func (s *Server) allowed(r *http.Request) string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := *r
		probe.Method = m
		if _, pattern := s.mux.Handler(&probe); pattern != "" {
			out = append(out, m)
		}
	}
	return strings.Join(out, ", ")
}

var (
	corsMethods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	corsHeaders = []string{"Authorization", "Content-Type", "Accept", "Origin", "User-Agent", "DNT", "Cache-Control",
		"X-Mx-ReqToken",
		"Keep-Alive", "X-Requested-With", "If-Modified-Since", "X-CSRF-Token", "X-Verbose-Error-Handling",
		"Idempotency-Key", "If-Match", "Prefer", "X-Request-Id", "Traceparent"}
)

// answerPreflight allows any origin and answers preflights before authentication; it reports whether it has answered.
func answerPreflight(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Origin") == "" {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Location, ETag, X-Request-Id")
	method := r.Header.Get("Access-Control-Request-Method")
	if r.Method != http.MethodOptions || method == "" {
		return false
	}
	if !slices.Contains(corsMethods, method) || !headersAllowed(r.Header.Get("Access-Control-Request-Headers")) {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(corsMethods, ","))
	h.Set("Access-Control-Allow-Headers", strings.Join(corsHeaders, ","))
	h.Set("Access-Control-Max-Age", "1728000")
	w.WriteHeader(http.StatusOK)
	return true
}

func headersAllowed(list string) bool {
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		known := func(h string) bool { return strings.EqualFold(h, name) }
		if name != "" && !slices.ContainsFunc(corsHeaders, known) {
			return false
		}
	}
	return true
}

// recorder remembers the status that was written.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// requestMetrics measures requests by their route, so that ids never become labels.
type requestMetrics struct{ seconds *prometheus.HistogramVec }

func newRequestMetrics(reg prometheus.Registerer) (*requestMetrics, error) {
	m := &requestMetrics{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "openaperture_http_request_duration_seconds",
		Help:    "Duration of REST requests by route and status.",
		Buckets: []float64{0.005, 0.02, 0.1, 0.5, 2, 10},
	}, []string{"route", "status"})}
	if reg == nil {
		return m, nil
	}
	return m, reg.Register(m.seconds)
}

func (m *requestMetrics) observe(pattern string, status int, d time.Duration) {
	if pattern == "" {
		pattern = "unknown"
	}
	m.seconds.WithLabelValues(pattern, strconv.Itoa(status)).Observe(d.Seconds())
}
