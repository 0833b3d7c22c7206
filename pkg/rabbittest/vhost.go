// Package rabbittest gives specs a real RabbitMQ: a virtual host of their own, a look behind the broker's back through
// its management API, and a proxy that breaks connections on demand. For suites only.
//
// It needs TEST_AMQP_URL and TEST_RABBIT_MANAGEMENT_URL and fails without them; it never skips.
package rabbittest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

// Host is one virtual host, alone with its queues.
type Host struct {
	Name string
	URL  string // AMQP URL with credentials, e.g. for rabbit.Config.URLs
}

// Vhost creates a virtual host that is deleted when the spec or suite that asked for it is over, and returns its AMQP
// URL.
func Vhost() string { return NewHost().URL }

// NewHost is Vhost for specs that also look into the broker.
func NewHost() *Host {
	ginkgo.GinkgoHelper()
	name := "spec-" + uuid.NewString()
	u, err := url.Parse(need("TEST_AMQP_URL"))
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	u.Path = "/" + name
	h := &Host{Name: name, URL: u.String()}
	h.manage(http.MethodPut, "/api/vhosts/"+name, nil, nil)
	h.manage(http.MethodPut, "/api/permissions/"+name+"/"+u.User.Username(),
		map[string]string{"configure": ".*", "write": ".*", "read": ".*"}, nil)
	ginkgo.DeferCleanup(func() { h.manage(http.MethodDelete, "/api/vhosts/"+name, nil, nil) })
	return h
}

func need(name string) string {
	ginkgo.GinkgoHelper()
	value := os.Getenv(name)
	gomega.Expect(value).NotTo(gomega.BeEmpty(), "set %s to run these specs", name)
	return value
}

// Address returns host:port of the broker, as a target for a Proxy.
func (h *Host) Address() string {
	u, err := url.Parse(h.URL)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return u.Host
}

// Credentials returns how the broker is reached, as a MessagingBrokerConnection says it.
func (h *Host) Credentials() (user, password, host string, port int) {
	ginkgo.GinkgoHelper()
	u, err := url.Parse(h.URL)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	password, _ = u.User.Password()
	port, err = strconv.Atoi(u.Port())
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return u.User.Username(), password, u.Hostname(), port
}

// Through returns the AMQP URL with another host:port, for instance a Proxy's.
func (h *Host) Through(address string) string {
	u, err := url.Parse(h.URL)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	u.Host = address
	return u.String()
}

// WithUser creates a user that may do everything in this virtual host and returns the AMQP URL for it. The user is
// deleted afterwards.
func (h *Host) WithUser(user, password string) string {
	ginkgo.GinkgoHelper()
	path := "/api/users/" + url.PathEscape(user)
	h.manage(http.MethodPut, path, map[string]string{"password": password, "tags": ""}, nil)
	h.manage(http.MethodPut, "/api/permissions/"+h.Name+"/"+url.PathEscape(user),
		map[string]string{"configure": ".*", "write": ".*", "read": ".*"}, nil)
	ginkgo.DeferCleanup(func() { h.manage(http.MethodDelete, path, nil, nil) })
	u, err := url.Parse(h.URL)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	u.User = url.UserPassword(user, password)
	return u.String()
}

// CloseConnections makes the broker close every connection to this virtual host and returns how many it knew of. The
// management API learns of a connection with a delay: repeat until the number is what the spec expects.
func (h *Host) CloseConnections() int {
	ginkgo.GinkgoHelper()
	var connections []struct {
		Name string `json:"name"`
	}
	h.manage(http.MethodGet, "/api/vhosts/"+h.Name+"/connections", nil, &connections)
	for _, c := range connections {
		h.manage(http.MethodDelete, "/api/connections/"+url.PathEscape(c.Name), nil, nil)
	}
	return len(connections)
}

// manage calls the management API. Deleting what is gone already is fine.
func (h *Host) manage(method, path string, body, into any) {
	ginkgo.GinkgoHelper()
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		payload = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(context.Background(), method,
		strings.TrimSuffix(need("TEST_RABBIT_MANAGEMENT_URL"), "/")+path, payload)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true} // specs count goroutines
	client := http.Client{Timeout: 15 * time.Second, Transport: transport}
	response, err := client.Do(request)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	if method == http.MethodDelete && response.StatusCode == http.StatusNotFound {
		return
	}
	gomega.Expect(response.StatusCode).To(gomega.BeNumerically("<", 300), fmt.Sprintf("%s %s: %s", method, path, answer))
	if into != nil {
		gomega.Expect(json.Unmarshal(answer, into)).To(gomega.Succeed())
	}
}
