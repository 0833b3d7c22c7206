// Package postgres opens Postgres so that nothing waits for ever, and says what
// its errors mean.
//
// lib/pq does not bound its socket I/O by a context: a server that goes silent
// would block a query long after its deadline. Every connection made here
// therefore has socket deadlines a little above the server's own
// statement_timeout. Driver code is in this package alone.
//
// Open never blocks and succeeds while the server is away: connections are made
// when they are needed, and Ping says whether one can be.
package postgres

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/boot"
)

// Config says where the database is and how long anything may take.
type Config struct {
	// URL is postgres://…, with an explicit sslmode: verify-full, or anything if
	// every host is loopback or a unix socket. Of several hosts, with commas between
	// them, the one that takes writes is used.
	URL boot.Secret `mapstructure:"url"`
	// URLFile holds the URL instead.
	URLFile string `mapstructure:"url_file"`
	// MaxOpen bounds the connections of the pool.
	MaxOpen int `mapstructure:"max_open"`
	// ConnectTimeout bounds the dialing, in whole seconds.
	ConnectTimeout time.Duration `mapstructure:"connect_timeout"`
	// StatementTimeout and LockTimeout are enforced by the server; the socket
	// deadline is StatementTimeout + 2 s.
	StatementTimeout time.Duration `mapstructure:"statement_timeout"`
	LockTimeout      time.Duration `mapstructure:"lock_timeout"`
	// LeaseTimeout is the StatementTimeout of the pool for leases.
	LeaseTimeout time.Duration `mapstructure:"lease_timeout"`
	// ApplicationName shows in pg_stat_activity.
	ApplicationName string `mapstructure:"application_name"`
}

// DefaultConfig has every value but the URL.
func DefaultConfig(applicationName string) Config {
	return Config{MaxOpen: 10, ConnectTimeout: 5 * time.Second, StatementTimeout: 10 * time.Second,
		LockTimeout: 5 * time.Second, LeaseTimeout: 2 * time.Second, ApplicationName: applicationName}
}

// Validate says in one line what is wrong with the configuration; it reads URLFile
// and never shows the URL.
func (c Config) Validate() error {
	_, err := c.endpoint()
	return err
}

// endpoint is the checked URL.
func (c Config) endpoint() (*url.URL, error) {
	switch {
	case c.MaxOpen < 1:
		return nil, fmt.Errorf("max_open %d: want at least 1", c.MaxOpen)
	case c.ConnectTimeout < time.Second:
		return nil, fmt.Errorf("connect_timeout %s: want at least 1s", c.ConnectTimeout)
	case c.StatementTimeout <= 0:
		return nil, fmt.Errorf("statement_timeout %s: want more than 0s", c.StatementTimeout)
	case c.LockTimeout <= 0 || c.LockTimeout > c.StatementTimeout:
		return nil, fmt.Errorf("lock_timeout %s: want more than 0s and at most statement_timeout %s", c.LockTimeout,
			c.StatementTimeout)
	case c.LeaseTimeout <= 0 || c.LeaseTimeout > c.StatementTimeout:
		return nil, fmt.Errorf("lease_timeout %s: want more than 0s and at most statement_timeout %s", c.LeaseTimeout,
			c.StatementTimeout)
	}
	secret, err := boot.SecretFrom(c.URL, c.URLFile)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	u, err := url.Parse(secret.Reveal())
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// the parser's error would show the password
		return nil, fmt.Errorf("url: want postgres://user@host:port/database?sslmode=…")
	}
	u = withHosts(u)
	return u, checkTLS(u)
}

// withHosts gives a URL that names several servers, such as postgres://user@one:5432,two:5432/database, the form that
// the driver understands: host and port as parameters.
func withHosts(u *url.URL) *url.URL {
	if !strings.Contains(u.Host, ",") {
		return u
	}
	var hosts, ports []string
	for _, each := range strings.Split(u.Host, ",") {
		host, port, err := net.SplitHostPort(each)
		if err != nil {
			host, port = each, "5432"
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	with := *u
	with.Host = ""
	q := u.Query()
	q.Set("host", strings.Join(hosts, ","))
	q.Set("port", strings.Join(ports, ","))
	with.RawQuery = q.Encode()
	return &with
}

// checkTLS refuses what an attacker on the network could read or alter, and every
// URL that leaves the mode to a default which the next driver may change.
func checkTLS(u *url.URL) error {
	mode := u.Query().Get("sslmode")
	if mode == "" {
		return fmt.Errorf("url: sslmode is missing: state it, verify-full for a server in a network")
	}
	hosts, err := hostsOf(u)
	if err != nil || mode == string(pq.SSLModeVerifyFull) {
		return err
	}
	for _, h := range hosts {
		if !local(h) {
			return fmt.Errorf("url: sslmode %s to host %s: want verify-full, less is for loopback and unix sockets only", mode,
				h.Host)
		}
	}
	return nil
}

// hostsOf is where the driver would connect to.
func hostsOf(u *url.URL) ([]pq.ConfigMultihost, error) {
	cfg, err := pq.NewConfig(u.String())
	if err != nil {
		return nil, fmt.Errorf("url: a parameter is not understood") // the driver's error may show the password
	}
	return append([]pq.ConfigMultihost{{Host: cfg.Host, Hostaddr: cfg.Hostaddr}}, cfg.Multi...), nil
}

func local(h pq.ConfigMultihost) bool {
	if h.Hostaddr.IsValid() {
		return h.Hostaddr.IsLoopback()
	}
	if strings.HasPrefix(h.Host, "/") || strings.HasPrefix(h.Host, "@") || h.Host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(h.Host, "[]"))
	return err == nil && addr.IsLoopback()
}

// dsn adds the limits to the URL; zero means no limit. What the URL states itself
// is kept.
func (c Config) dsn(u *url.URL, statement, lock time.Duration) string {
	q := u.Query()
	set := func(key, value string) {
		if !q.Has(key) {
			q.Set(key, value)
		}
	}
	set("connect_timeout", strconv.Itoa(int(c.ConnectTimeout.Seconds())))
	set("application_name", c.ApplicationName)
	if hosts, err := hostsOf(u); err == nil && len(hosts) > 1 {
		set("target_session_attrs", "read-write") // of several servers the primary
	}
	set("idle_in_transaction_session_timeout", milliseconds(max(time.Minute, 2*statement)))
	if statement > 0 {
		set("statement_timeout", milliseconds(statement))
	}
	if lock > 0 {
		set("lock_timeout", milliseconds(lock))
	}
	with := *u
	with.RawQuery = q.Encode()
	return with.String()
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
