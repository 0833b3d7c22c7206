package rabbit

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Address says where a broker is and who asks. It is the only place that holds a password, and it has no String that
// shows one.
type Address struct {
	Host     string
	Port     int // 0 means 5672, or 5671 with TLS
	User     string
	Password string
	VHost    string // "" means "/"
	TLS      bool
}

// URL returns the AMQP URI with every reserved character escaped (T8). It holds the password: never log it.
func (a Address) URL() string {
	scheme, port := "amqp", a.Port
	if a.TLS {
		scheme = "amqps"
	}
	if port == 0 {
		port = map[bool]int{false: 5672, true: tlsPort}[a.TLS]
	}
	vhost := a.VHost
	if vhost == "" {
		vhost = "/"
	}
	u := url.URL{Scheme: scheme, User: url.UserPassword(a.User, a.Password),
		Host: net.JoinHostPort(a.Host, strconv.Itoa(port)),
		Path: "/" + vhost, RawPath: "/" + url.PathEscape(vhost)}
	return u.String()
}

// String names host and vhost only, so an Address may be printed.
func (a Address) String() string { return Redact(a.URL()) }

// GoString is String: %#v does not show the password either.
func (a Address) GoString() string { return a.String() }

// ParseURL reads an AMQP URI. Query parameters are dropped: heartbeat and time-outs are set by Config alone (T6).
// Its errors never quote the input.
func ParseURL(raw string) (Address, error) {
	u, err := amqp.ParseURI(raw)
	if err != nil {
		return Address{}, errors.New("parse broker URL: not a valid amqp:// or amqps:// URL " +
			"(reserved characters in user and password must be percent-encoded)")
	}
	return Address{Host: u.Host, Port: u.Port, User: u.Username, Password: u.Password, VHost: u.Vhost,
		TLS: u.Scheme == "amqps"}, nil
}

// tlsPort is the port of AMQP over TLS.
const tlsPort = 5671

// NewAddress is the address that a MessagingBrokerConnection describes. It has no field for TLS, as the predecessor's
// has none: port 5671 means TLS. Port 0 means the usual one.
func NewAddress(host string, port int, user, password, vhost string) Address {
	return Address{Host: host, Port: port, User: user, Password: password, VHost: vhost, TLS: port == tlsPort}
}

// ParseURLs reads the addresses of one broker: of a cluster, a URL for each node. They are separated by commas or white
// space. A comma separates only in front of amqp:// or amqps://, because a password may contain one. All URLs name the
// same virtual host. The errors never quote the input.
func ParseURLs(text string) ([]string, error) {
	var urls []string
	var vhost string
	parts := splitURLs(text)
	for i, raw := range parts {
		a, err := ParseURL(raw)
		if err != nil && len(parts) == 1 {
			return nil, err
		}
		if err != nil {
			return nil, fmt.Errorf("address %d: %w", i+1, err)
		}
		if i > 0 && a.VHost != vhost {
			return nil, fmt.Errorf("address %d: another virtual host than address 1; list the nodes of one cluster only", i+1)
		}
		vhost = a.VHost
		urls = append(urls, raw)
	}
	return urls, nil
}

var urlStart = regexp.MustCompile(`(?:^|[,\s])\s*amqps?://`)

// splitURLs splits in front of each scheme.
func splitURLs(text string) []string {
	var parts []string
	begin := 0
	for _, at := range urlStart.FindAllStringIndex(text, -1) {
		if at[0] > begin {
			parts = append(parts, text[begin:at[0]])
			begin = at[0]
		}
	}
	parts = append(parts, text[begin:])
	for i, part := range parts {
		parts[i] = strings.Trim(part, ", \t\r\n")
	}
	return parts
}

// Redact returns what may be logged of an AMQP URI: scheme, host, port and vhost.
func Redact(raw string) string {
	a, err := ParseURL(raw)
	if err != nil {
		return "invalid broker URL"
	}
	scheme := "amqp"
	if a.TLS {
		scheme = "amqps"
	}
	return fmt.Sprintf("%s://%s/%s", scheme, net.JoinHostPort(a.Host, strconv.Itoa(a.Port)), url.PathEscape(a.VHost))
}

// scrub removes the passwords of all addresses from a text, in every form in which a URL or a log could carry them.
func scrub(text string, addresses []Address) string {
	for _, a := range addresses {
		for _, form := range []string{a.Password, url.QueryEscape(a.Password), url.PathEscape(a.Password),
			userinfo(a.Password)} {
			if len(form) > 3 { // a shorter one would shred ordinary words and is not a secret worth the name
				text = strings.ReplaceAll(text, form, "***")
			}
		}
	}
	return text
}

func userinfo(password string) string {
	return strings.TrimPrefix(url.UserPassword("", password).String(), ":")
}

// deadlineConn gives every single write a deadline, because the client library gives it none (T3).
type deadlineConn struct {
	net.Conn
	write time.Duration
}

func (c deadlineConn) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.write))
	return c.Conn.Write(p)
}

// dialAMQP opens one connection and returns it with its raw socket, which the watchdog of T5 closes. The configuration
// is built anew per dial (T7); Recovery stays nil (T1, T2).
func dialAMQP(a Address, c Config, name string) (*amqp.Connection, net.Conn, error) {
	var raw net.Conn
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(name)
	config := amqp.Config{
		SASL:       []amqp.Authentication{&plainAuth{user: a.User, password: a.Password, properties: properties}},
		Heartbeat:  c.Heartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			conn, err := amqp.DefaultDial(c.DialTimeout)(network, addr) // its deadline also bounds the handshakes (T4)
			if err != nil {
				return nil, err
			}
			raw = conn
			return deadlineConn{Conn: conn, write: c.WriteTimeout}, nil
		},
	}
	if c.TLS != nil {
		config.TLSClientConfig = c.TLS.Clone()
	} else if a.TLS {
		config.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	connection, err := amqp.DialConfig(a.URL(), config)
	if err != nil {
		if raw != nil {
			_ = raw.Close() // a failed handshake leaves the socket open
		}
		return nil, nil, fmt.Errorf("dial %s: %w", a, err)
	}
	return connection, raw, nil
}

// plainAuth is SASL PLAIN that also announces authentication_failure_close, so that refused credentials come back as a
// server error and are not mistaken for a broker that went away during the handshake. The library overwrites the
// capabilities after its caller has set the properties and just before it asks for the response: this is the one
// moment at which one can be added.
type plainAuth struct {
	user, password string
	properties     amqp.Table
}

// Mechanism implements amqp.Authentication.
func (p *plainAuth) Mechanism() string { return "PLAIN" }

// Response implements amqp.Authentication.
func (p *plainAuth) Response() string {
	if capabilities, ok := p.properties["capabilities"].(amqp.Table); ok {
		capabilities["authentication_failure_close"] = true
	}
	return "\000" + p.user + "\000" + p.password
}
