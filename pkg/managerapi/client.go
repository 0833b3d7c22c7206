package managerapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 32 << 20

// Client calls manager-api. Every call is bounded by its context and by 10 s; it is tried once: callers decide
// with Retry what is worth repeating.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New returns a client of the manager-api at base, e.g. "http://127.0.0.1:8080".
func New(base, token string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 10 * time.Second
	transport.MaxIdleConnsPerHost = 8
	return &Client{base: strings.TrimRight(base, "/"), token: token, http: &http.Client{
		Transport:     transport,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Retry calls f until it succeeds, ctx ends, or it fails with anything but Unavailable: from 100 ms up to 5 s between
// tries.
func Retry(ctx context.Context, f func() error) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 100*time.Millisecond, 5*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		if err != nil && !fault.Is(err, fault.Unavailable) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(0))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		return permanent.Err
	}
	return err
}

// Do sends one request with an optional JSON body and decodes the answer into out, unless that is nil. The fault kind
// of an error follows from the status; a transport failure is Unavailable.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	_, err := c.exchange(ctx, method, path, in, out)
	return err
}

// doEither sends full, a request with fields that the former release of manager-api does not know. That release refuses
// an unknown field (400) and does nothing. The request is then repeated as plain, which is without those fields.
func (c *Client) doEither(ctx context.Context, method, path string, full, plain, out any) error {
	err := c.Do(ctx, method, path, full, out)
	if fault.Is(err, fault.Invalid) && strings.Contains(err.Error(), unknownField) {
		return c.Do(ctx, method, path, plain, out)
	}
	return err
}

// unknownField stands in manager-api's answer to a request with a field that it does not know.
const unknownField = "unknown field"

func (c *Client) exchange(ctx context.Context, method, path string, in, out any) (http.Header, error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request for %s: %w", path, err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request for %s: %w", path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	otel.GetTextMapPropagator().Inject(ctx, propagation.HeaderCarrier(req.Header))
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "manager-api does not answer %s %s", method, path)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read answer of %s %s", method, path)
	}
	if res.StatusCode >= 300 {
		return nil, failure(method, path, res.StatusCode, raw)
	}
	if out == nil || len(raw) == 0 {
		return res.Header, nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, fmt.Errorf("decode answer of %s %s: %w", method, path, err)
	}
	return res.Header, nil
}

// failure reads the two error shapes: problem details and the predecessor's {"errors":[{"message":…}]}.
func failure(method, path string, status int, raw []byte) error {
	var shape struct {
		Detail string `json:"detail"`
		Title  string `json:"title"`
		Code   string `json:"code"`
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	text := http.StatusText(status)
	if json.Unmarshal(raw, &shape) == nil {
		switch {
		case shape.Detail != "":
			text = shape.Detail
		case len(shape.Errors) > 0 && shape.Errors[0].Message != "":
			text = shape.Errors[0].Message
		case shape.Title != "":
			text = shape.Title
		}
	}
	if status == http.StatusInternalServerError {
		shape.Code = CodeInternal
	}
	return fault.New(fault.FromHTTPStatus(status), "%s %s: %d %s", method, path, status, text).WithCode(shape.Code)
}

// CodeInternal is the code of a 500: manager-api is there and failed at this one request. Its kind is Unavailable, as a
// repeat may cure it.
const CodeInternal = "internal"

// Answered reports whether an error is what manager-api itself says to the request, and not its silence or absence.
func Answered(err error) bool {
	return !fault.Is(err, fault.Unavailable) || fault.CodeOf(err) == CodeInternal
}

func escape[T ~string](s T) string { return url.PathEscape(string(s)) }

// Exchange reads GET /messaging/exchanges/:id.
func (c *Client) Exchange(ctx context.Context, id component.ExchangeID) (Exchange, error) {
	var e Exchange
	return e, c.Do(ctx, http.MethodGet, fmt.Sprintf("/messaging/exchanges/%d", id), nil, &e)
}

// BrokerConnections reads GET /messaging/brokers/:id/connections. Each read is journalled: do not poll it.
func (c *Client) BrokerConnections(ctx context.Context, broker int64) ([]BrokerConnection, error) {
	var list []BrokerConnection
	return list, c.Do(ctx, http.MethodGet, fmt.Sprintf("/messaging/brokers/%d/connections", broker), nil, &list)
}

// Snapshot reads GET /messaging/exchanges/:id/snapshot.
func (c *Client) Snapshot(ctx context.Context, id component.ExchangeID) (Snapshot, error) {
	var s Snapshot
	return s, c.Do(ctx, http.MethodGet, fmt.Sprintf("/messaging/exchanges/%d/snapshot", id), nil, &s)
}

// Lead acquires or renews leadership: PUT /messaging/exchanges/:id/leader. Conflict: another holds it.
func (c *Client) Lead(ctx context.Context, id component.ExchangeID, r LeaseRequest) (Lease, error) {
	var l Lease
	plain := r
	plain.Capabilities = nil
	return l, c.doEither(ctx, http.MethodPut, fmt.Sprintf("/messaging/exchanges/%d/leader", id), r, plain, &l)
}

// Resign gives leadership up: DELETE /messaging/exchanges/:id/leader?term=…
func (c *Client) Resign(ctx context.Context, id component.ExchangeID, term int64) error {
	return c.Do(ctx, http.MethodDelete, fmt.Sprintf("/messaging/exchanges/%d/leader?term=%d", id, term), nil, nil)
}

// Beat stores a batch of heartbeats: POST /messaging/exchanges/:id/modules/batch. It needs no term: it can only revive.
func (c *Client) Beat(ctx context.Context, id component.ExchangeID, b ModuleBatch) (BatchResult, error) {
	var r BatchResult
	return r, c.Do(ctx, http.MethodPost, fmt.Sprintf("/messaging/exchanges/%d/modules/batch", id), b, &r)
}

// Expire runs one sweep: POST /messaging/exchanges/:id/modules/expire.
func (c *Client) Expire(ctx context.Context, id component.ExchangeID, e Expiry) (ExpiryResult, error) {
	var r ExpiryResult
	return r, c.Do(ctx, http.MethodPost, fmt.Sprintf("/messaging/exchanges/%d/modules/expire", id), e, &r)
}

// Check records an automatic check: PUT /system_components/:id/check.
func (c *Client) Check(ctx context.Context, id component.ID, k Check) error {
	return c.Do(ctx, http.MethodPut, fmt.Sprintf("/system_components/%d/check", id), k, nil)
}

// RequestUpgrade makes or finds the component's open upgrade: POST /upgrades.
func (c *Client) RequestUpgrade(ctx context.Context, r UpgradeRequest) (Upgrade, error) {
	var u Upgrade
	return u, c.Do(ctx, http.MethodPost, "/upgrades", r, &u)
}

// Upgrade reads GET /upgrades/:id with its decisions.
func (c *Client) Upgrade(ctx context.Context, id upgrade.ID) (Upgrade, error) {
	var u Upgrade
	return u, c.Do(ctx, http.MethodGet, "/upgrades/"+escape(id), nil, &u)
}

// Upgrades reads one page of GET /upgrades; the query may name component_id, messaging_exchange_id, state, cursor and
// limit.
func (c *Client) Upgrades(ctx context.Context, query url.Values) (Page[Upgrade], error) {
	var p Page[Upgrade]
	return p, c.Do(ctx, http.MethodGet, "/upgrades?"+query.Encode(), nil, &p)
}

// Start begins a requested upgrade: POST /upgrades/:id/start. Conflict: stale term, slot taken, no longer requested, or
// with code CodeSeenChanged what the judgement rests on has changed.
func (c *Client) Start(ctx context.Context, id upgrade.ID, j Judgement) error {
	return c.judge(ctx, "/upgrades/"+escape(id)+"/start", j)
}

// Refuse ends a requested upgrade as ineligible: POST /upgrades/:id/refuse. Conflict: as for Start.
func (c *Client) Refuse(ctx context.Context, id upgrade.ID, j Judgement) error {
	return c.judge(ctx, "/upgrades/"+escape(id)+"/refuse", j)
}

func (c *Client) judge(ctx context.Context, path string, j Judgement) error {
	plain := j
	plain.Saw, plain.Target = nil, j.Target.AtRef()
	return c.doEither(ctx, http.MethodPost, path, j, plain, nil)
}

// Prove says that the current phase is proven: POST /upgrades/:id/proven. manager-api checks it again against its own
// rows; Conflict means that it does not agree, or that the term is stale.
func (c *Client) Prove(ctx context.Context, id upgrade.ID, j Judgement) error {
	j.Target = j.Target.AtRef() // the former release refuses its commits, and nobody reads the target of a proof
	return c.Do(ctx, http.MethodPost, "/upgrades/"+escape(id)+"/proven", j, nil)
}

// Claim claims an order: POST /orders/:id/claim. Conflict: held by another, an old attempt, ended, or past its
// deadline.
func (c *Client) Claim(ctx context.Context, orderID string, r ClaimRequest) (Claim, error) {
	var k Claim
	plain := r
	plain.Capabilities = nil
	return k, c.doEither(ctx, http.MethodPost, "/orders/"+escape(orderID)+"/claim", r, plain, &k)
}

// Renew renews a claim: POST /orders/:id/renew. Conflict with code "superseded": a higher token exists, touch nothing
// more.
func (c *Client) Renew(ctx context.Context, orderID string, token int64) (Claim, error) {
	var k Claim
	return k, c.Do(ctx, http.MethodPost, "/orders/"+escape(orderID)+"/renew", Renewal{token}, &k)
}

// ReleaseClaim gives a claim back, for another executor: POST /orders/:id/release.
func (c *Client) ReleaseClaim(ctx context.Context, orderID string, token int64) error {
	return c.Do(ctx, http.MethodPost, "/orders/"+escape(orderID)+"/release", Renewal{token}, nil)
}

// Order reads GET /orders/:id.
func (c *Client) Order(ctx context.Context, orderID string) (OrderView, error) {
	var o OrderView
	return o, c.Do(ctx, http.MethodGet, "/orders/"+escape(orderID), nil, &o)
}

// ClaimsOf reads the claimed orders of an executor's hostname, and announces the executor: GET /orders?holder=…
func (c *Client) ClaimsOf(ctx context.Context, e Executor) ([]OrderView, error) {
	var p Page[OrderView]
	query := url.Values{"holder": {e.Hostname}, "boot_id": {e.BootID}, "service": {e.Service},
		"capabilities": {strings.Join(e.Capabilities, ",")}}
	err := c.Do(ctx, http.MethodGet, "/orders?"+query.Encode(), nil, &p)
	return p.Items, err
}

// Adopt stores a release that runs already as the proven one: POST /system_components/:id/releases.
func (c *Client) Adopt(ctx context.Context, r Release) (Release, error) {
	var out Release
	return out, c.Do(ctx, http.MethodPost, fmt.Sprintf("/system_components/%d/releases", r.ComponentID), r, &out)
}

// Create POSTs to a collection of the predecessor's families and returns the last segment of the Location.
func (c *Client) Create(ctx context.Context, path string, body any) (string, error) {
	h, err := c.exchange(ctx, http.MethodPost, path, body, nil)
	if err != nil {
		return "", err
	}
	loc := strings.TrimRight(h.Get("Location"), "/")
	return loc[strings.LastIndexByte(loc, '/')+1:], nil
}
