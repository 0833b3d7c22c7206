package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/servers"
)

// Separated is how a stack's services reach their servers when each of them has links of its own. Empty: they connect
// directly.
type Separated struct {
	Control int            `json:"control,omitempty"` // port on which the links are broken and healed
	Ports   map[string]int `json:"ports,omitempty"`   // per kind of link the first port; instance i has this plus i
}

// Link is a TCP link between one instance of a service and one server that it uses.
type Link struct {
	Name   string `json:"name"`
	Listen string `json:"listen"`
	Target string `json:"target"`
}

// Kinds of links, by the service that uses them.
func toBroker(v Service) string  { return v.Name + "-to-broker" }
func toManager(v Service) string { return v.Name + "-to-manager" }

const (
	toDatabase = managerAPI + "-to-database"
	toUnitd    = "executors-to-unitd"
)

// Separate puts a link between every instance and every server that it uses: the broker, the database, manager-api, and
// unitd. It must be called before the first Up.
func (s *Stack) Separate(ctx context.Context) error {
	kinds := []string{"control", toDatabase, toUnitd}
	for _, v := range Own {
		kinds = append(kinds, toBroker(v), toManager(v))
	}
	taken := map[int]bool{s.Unitd / 10 * 10: true}
	for _, first := range s.Listen {
		taken[first] = true
	}
	s.Separated = Separated{Ports: map[string]int{}}
	for len(kinds) > 0 { // nothing listens yet on the ports that the stack has chosen before
		blocks, err := servers.FreeBlocks(ctx, len(kinds), 10)
		if err != nil {
			return err
		}
		for _, first := range blocks {
			if !taken[first] {
				s.Separated.Ports[kinds[0]], kinds = first, kinds[1:]
				taken[first] = true
			}
		}
	}
	s.Separated.Control = s.Separated.Ports["control"]
	return s.save()
}

// linked says whether the services use links.
func (s *Stack) linked() bool { return s.Separated.Control != 0 }

// Links are all links of a separated stack.
func (s *Stack) Links() []Link {
	if !s.linked() {
		return nil
	}
	local := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	link := func(kind string, instance, target int) Link {
		name := strings.Replace(kind, "-to-", fmt.Sprintf("-%d-to-", instance), 1)
		return Link{Name: name, Listen: local(s.Separated.Ports[kind] + instance), Target: local(target)}
	}
	links := []Link{link(toDatabase, 1, s.Postgres.Port), link(toUnitd, 1, s.Unitd)}
	for _, v := range Own {
		for i := 1; i <= v.Instances; i++ {
			links = append(links, link(toBroker(v), i, s.RabbitMQ.Port))
			if v.Name != managerAPI {
				links = append(links, link(toManager(v), i, s.Listen[managerAPI]+1))
			}
		}
	}
	return links
}

// brokerPort is where an instance reaches the broker.
func (s *Stack) brokerPort(v Service, instance int) int {
	if !s.linked() {
		return s.RabbitMQ.Port
	}
	return s.Separated.Ports[toBroker(v)] + instance
}

// clusterEndpoint is where the executors reach unitd.
func (s *Stack) clusterEndpoint() string {
	if !s.linked() {
		return s.UnitdURL()
	}
	return fmt.Sprintf("http://127.0.0.1:%d", s.Separated.Ports[toUnitd]+1)
}

// linkedEnvironment are the variables by which an instance, %i, uses its links.
func (s *Stack) linkedEnvironment(v Service) string {
	if !s.linked() || v.Name == hello {
		return ""
	}
	text := " OPENAPERTURE_AMQP_URL_FILE=" + s.linkFile(toBroker(v), "%i")
	if v.Name == managerAPI {
		return text + " OPENAPERTURE_DATABASE_URL_FILE=" + s.linkFile(toDatabase, "%i")
	}
	return text + fmt.Sprintf(" OPENAPERTURE_MANAGER_URL=http://127.0.0.1:%d%%i", s.Separated.Ports[toManager(v)]/10)
}

// linkFile holds the address of a server as one instance reaches it, with its password.
func (s *Stack) linkFile(kind, instance string) string { return s.path("secrets", kind+"-"+instance) }

// configureLinks writes the list of the links, and the addresses by which the services use them.
func (s *Stack) configureLinks() error {
	if !s.linked() {
		return nil
	}
	list := map[string]any{"control": fmt.Sprintf("127.0.0.1:%d", s.Separated.Control), "links": s.Links()}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fmt.Errorf("list the links: %w", err)
	}
	if err := os.WriteFile(s.path("config", "links.json"), text, 0o600); err != nil {
		return fmt.Errorf("list the links: %w", err)
	}
	postgres := s.Postgres
	postgres.Port = s.Separated.Ports[toDatabase] + 1
	if err := s.keep(toDatabase+"-1", postgres.URL(database)); err != nil {
		return err
	}
	for _, v := range Own {
		for i := 1; i <= v.Instances; i++ {
			rabbitmq := s.RabbitMQ
			rabbitmq.Port = s.brokerPort(v, i)
			if err := s.keep(fmt.Sprintf("%s-%d", toBroker(v), i), rabbitmq.URL()); err != nil {
				return err
			}
		}
	}
	return nil
}

// startLinks starts the process that holds the links, unless it answers.
func (s *Stack) startLinks(ctx context.Context) error {
	if !s.linked() || s.changeLinks(ctx, http.MethodGet, "") == nil {
		return nil
	}
	if err := s.compile(ctx, s.path("bin")+"/", "local", []string{module + "deploy/local/links"}); err != nil {
		return err
	}
	ended, err := s.spawn(ctx, "links", s.path("config", "links.json"))
	if err != nil {
		return err
	}
	return s.until(ctx, 10*time.Second, "the links are there", func() (string, bool) {
		err := s.changeLinks(ctx, http.MethodGet, "")
		return fmt.Sprint(err, ended()), err == nil
	})
}

// Cut breaks all connections of a link with a reset, and every new one, until Heal.
func (s *Stack) Cut(ctx context.Context, link string) error {
	return s.changeLinks(ctx, http.MethodPut, link+"/cut")
}

// Stall makes a link silent in both directions, until Heal. Its connections stay open.
func (s *Stack) Stall(ctx context.Context, link string) error {
	return s.changeLinks(ctx, http.MethodPut, link+"/stall")
}

// Heal ends a Cut and a Stall of a link.
func (s *Stack) Heal(ctx context.Context, link string) error {
	return s.changeLinks(ctx, http.MethodPut, link+"/heal")
}

func (s *Stack) changeLinks(ctx context.Context, method, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	at := fmt.Sprintf("http://127.0.0.1:%d/%s", s.Separated.Control, path)
	req, err := http.NewRequestWithContext(ctx, method, at, nil)
	if err != nil {
		return fmt.Errorf("change a link: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("change a link: %w", err)
	}
	_ = res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("change a link: %s %s: %s", method, at, res.Status)
	}
	return nil
}

// stopLinks ends the process that holds the links.
func (s *Stack) stopLinks() {
	if pid, runs := s.pidOf("links"); runs {
		_ = syscall.Kill(pid, syscall.SIGTERM) // gone meanwhile: fine
	}
}
