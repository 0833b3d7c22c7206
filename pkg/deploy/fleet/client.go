// Package fleet is the runtime for clusters that speak Fleet's HTTP API v1: unitd, and a real fleet as well.
//
// Invariants: a desiredState is one of Fleet's own (a real fleet breaks on others); no definition is sent that
// unit.Validate refuses; names are compared whole; an answer is untrusted: bounded in size and time. The fencing token
// is checked by read-compare-write here, and atomically by unitd, which also lets a client wait for a change of state.
package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/unit"
)

// Headers of unitd.
const (
	tokenHeader = "X-OpenAperture-Token" //nolint:gosec // the name of a header, no credential
	indexHeader = "X-OpenAperture-Index"
)

const (
	maxAnswer   = 16 << 20
	maxPages    = 1000
	callTimeout = 15 * time.Second
)

// The desired states that are ever sent.
const (
	inactive = "inactive"
	launched = "launched"
)

// fleetUnit is a unit in Fleet's shape.
type fleetUnit struct {
	Name         string        `json:"name"`
	Options      []unit.Option `json:"options"`
	DesiredState string        `json:"desiredState"`
	CurrentState string        `json:"currentState"`
	MachineID    string        `json:"machineID"`
	ignoresToken bool          // the server is unitd: another token is no other definition
}

// fleetState is a unit's state: Fleet's fields and unitd's.
type fleetState struct {
	Name      string `json:"name"`
	Hash      string `json:"hash"`
	MachineID string `json:"machineID"`
	Active    string `json:"systemdActiveState"`
	Since     string `json:"activeSince"`
	Restarts  int    `json:"restarts"`
}

// fleetMachine is a machine in Fleet's shape.
type fleetMachine struct {
	ID       string            `json:"id"`
	Metadata map[string]string `json:"metadata"`
}

type page struct {
	Units         []fleetUnit    `json:"units"`
	States        []fleetState   `json:"states"`
	Machines      []fleetMachine `json:"machines"`
	NextPageToken string         `json:"nextPageToken"`
}

// client speaks HTTP with one endpoint.
type client struct {
	base   string
	bearer string
	http   *http.Client
}

// newClient accepts http://host:port, https://host and unix:/path/of/socket.
func newClient(endpoint, bearer string) (*client, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second,
		ResponseHeaderTimeout: 2 * waitAtOnce,
		TLSHandshakeTimeout:   5 * time.Second, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	c := &client{bearer: bearer, http: &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if socket, ok := strings.CutPrefix(endpoint, "unix:"); ok {
		socket = strings.TrimPrefix(socket, "//")
		if !strings.HasPrefix(socket, "/") {
			return nil, fmt.Errorf("%w: endpoint %q: want unix:/path", runtime.ErrRefused, endpoint)
		}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
		}
		c.base = "http://unitd"
		return c, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%w: endpoint: want http://host:port, https://host or unix:/path", runtime.ErrRefused)
	}
	c.base = strings.TrimRight(endpoint, "/")
	return c, nil
}

// answer is what came back: a status below 500.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends one request. It fails with ErrUnreachable when there is no answer, or one of a broken server.
func (c *client) call(ctx context.Context, limit time.Duration, method, path string, token int64, in any) (answer,
	error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return answer{}, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return answer{}, fmt.Errorf("%w: make request: %w", runtime.ErrRefused, err)
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	if token > 0 {
		req.Header.Set(tokenHeader, fmt.Sprint(token))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, runtime.Unreachable(plain(err))
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer{}, runtime.Unreachable(plain(err))
	case len(raw) > maxAnswer:
		return answer{}, fmt.Errorf("%w: answer exceeds %d bytes", runtime.ErrRefused, maxAnswer)
	case res.StatusCode >= 500:
		a := answer{res.StatusCode, res.Header, raw}
		return answer{}, runtime.Unreachable(fmt.Errorf("%s %s: %s", method, path, a.text()))
	}
	return answer{res.StatusCode, res.Header, raw}, nil
}

// plain takes the address out of a transport error.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// text is the status with the message of an error, if it has one.
func (a answer) text() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.status, a.message()))
}

// message is that of an error in Fleet's shape, "" if the body has none.
func (a answer) message() string {
	var body struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(a.body, &body) // the status alone will do
	return clean(body.Error.Message, 300)
}

// refusal is the error for a status that is not the wanted one.
func (a answer) refusal(method, path string) error {
	message := a.message()
	if a.status == http.StatusConflict && strings.HasPrefix(message, "superseded") {
		return fmt.Errorf("%w: %s", runtime.ErrSuperseded, message)
	}
	return fmt.Errorf("%w: %s %s: %d %s", runtime.ErrRefused, method, path, a.status, message)
}

// clean makes text of another system fit for messages: printable, one line, short.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > limit {
		return text[:limit]
	}
	return text
}

// pages reads a whole list, however many pages it has.
func (c *client) pages(ctx context.Context, path string, each func(page)) error {
	next := ""
	for range maxPages {
		query := ""
		if next != "" {
			query = separator(path) + "nextPageToken=" + url.QueryEscape(next)
		}
		got, err := c.call(ctx, callTimeout, http.MethodGet, path+query, 0, nil)
		if err != nil {
			return err
		}
		if got.status != http.StatusOK {
			return got.refusal(http.MethodGet, path)
		}
		var p page
		if err := json.Unmarshal(got.body, &p); err != nil {
			return fmt.Errorf("%w: answer of %s: %w", runtime.ErrRefused, path, err)
		}
		each(p)
		if p.NextPageToken == "" {
			return nil
		}
		next = p.NextPageToken
	}
	return fmt.Errorf("%w: %s has more than %d pages", runtime.ErrRefused, path, maxPages)
}

func separator(path string) string {
	if strings.Contains(path, "?") {
		return "&"
	}
	return "?"
}

// unit reads one unit; ok is false if there is none.
func (c *client) unit(ctx context.Context, name string) (u fleetUnit, ok bool, err error) {
	path := unitPath(name)
	got, err := c.call(ctx, callTimeout, http.MethodGet, path, 0, nil)
	switch {
	case err != nil:
		return u, false, err
	case got.status == http.StatusNotFound:
		return u, false, nil
	case got.status != http.StatusOK:
		return u, false, got.refusal(http.MethodGet, path)
	}
	if err := json.Unmarshal(got.body, &u); err != nil {
		return u, false, fmt.Errorf("%w: answer of %s: %w", runtime.ErrRefused, path, err)
	}
	u.ignoresToken = strings.HasPrefix(got.header.Get("Server"), "unitd/")
	return u, true, nil
}

func unitPath(name string) string { return "/fleet/v1/units/" + url.PathEscape(name) }
