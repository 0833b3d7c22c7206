package stack

import (
	"context"
	"fmt"
	"maps"
	"net/http"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// Module is a MessagingExchangeModule as the API shows it.
type Module struct {
	Hostname         string         `json:"hostname"`
	Type             component.Type `json:"type"`
	Service          string         `json:"service"`
	Status           string         `json:"status"`
	SourceRepoGitRef string         `json:"source_repo_git_ref"`
	UpdatedAt        string         `json:"updated_at"` // the last heartbeat
}

// Modules reads GET /messaging/exchanges/:id/modules.
func Modules(ctx context.Context, api *managerapi.Client) ([]Module, error) {
	var modules []Module
	return modules, api.Do(ctx, http.MethodGet, fmt.Sprintf("/messaging/exchanges/%d/modules", firstExchange), nil,
		&modules)
}

// Component is a SystemComponent as the API shows it.
type Component struct {
	ID               component.ID   `json:"id"`
	Type             component.Type `json:"type"`
	SourceRepoGitRef string         `json:"source_repo_git_ref"`
	Status           string         `json:"status"`
}

// Components reads GET /messaging/exchanges/:id/system_components.
func Components(ctx context.Context, api *managerapi.Client) ([]Component, error) {
	var components []Component
	return components, api.Do(ctx, http.MethodGet, fmt.Sprintf("/messaging/exchanges/%d/system_components", firstExchange),
		nil, &components)
}

// FindComponent is the exchange's component of a type.
func FindComponent(ctx context.Context, api *managerapi.Client, t component.Type) (Component, error) {
	components, err := Components(ctx, api)
	if err != nil {
		return Component{}, err
	}
	for _, c := range components {
		if c.Type == t {
			return c, nil
		}
	}
	return Component{}, fault.New(fault.NotFound, "the exchange has no component of type %s", t)
}

// SetGoldStandard says which version of a type should run: PUT /system_component_refs/:type.
func SetGoldStandard(ctx context.Context, api *managerapi.Client, t component.Type, repo, ref string) error {
	return api.Do(ctx, http.MethodPut, "/system_component_refs/"+string(t),
		map[string]any{"source_repo": repo, "source_repo_git_ref": ref, "auto_upgrade_enabled": true}, nil)
}

// ChangeComponent changes fields of the exchange's component of a type and leaves the others as they are.
func ChangeComponent(ctx context.Context, api *managerapi.Client, t component.Type, fields map[string]any) error {
	c, err := FindComponent(ctx, api, t)
	if err != nil {
		return err
	}
	at := fmt.Sprintf("/system_components/%d", c.ID)
	whole := map[string]any{}
	if err := api.Do(ctx, http.MethodGet, at, nil, &whole); err != nil {
		return err
	}
	maps.Copy(whole, fields)
	return api.Do(ctx, http.MethodPut, at, whole, nil)
}

// register makes everything that does not exist.
func (s *Stack) register(ctx context.Context, api *managerapi.Client) error {
	if err := RegisterExchange(ctx, api); err != nil {
		return err
	}
	if err := s.registerBroker(ctx, api); err != nil {
		return err
	}
	if err := registerCluster(ctx, api, s.clusterEndpoint()); err != nil {
		return err
	}
	for _, v := range Own {
		if v.Phase > 1 {
			continue // the second service of a component that is registered
		}
		if err := s.registerComponent(ctx, api, v, First, First); err != nil {
			return err
		}
	}
	return nil
}

// RegisterOutside registers this machine with an OpenAperture that runs elsewhere: the exchange, the cluster, which is
// reached at endpoint from there, and a component with its gold standard, of which nothing is deployed.
func (s *Stack) RegisterOutside(ctx context.Context, api *managerapi.Client, endpoint string, v Service) error {
	if err := RegisterExchange(ctx, api); err != nil {
		return err
	}
	if err := registerCluster(ctx, api, endpoint); err != nil {
		return err
	}
	return s.registerComponent(ctx, api, v, First, "")
}

func registerCluster(ctx context.Context, api *managerapi.Client, endpoint string) error {
	return ensure(ctx, api, "/clusters/"+clusterToken, "/clusters", map[string]any{
		"etcd_token": clusterToken, "name": "this machine", "messaging_exchange_id": firstExchange, "runtime": "fleet",
		"endpoint": endpoint})
}

// RegisterExchange makes the exchange that tokens and configurations name, unless it exists.
func RegisterExchange(ctx context.Context, api *managerapi.Client) error {
	err := ensure(ctx, api, fmt.Sprintf("/messaging/exchanges/%d", firstExchange), "/messaging/exchanges",
		map[string]any{"name": ExchangeName, "routing_key_fragment": ExchangeName})
	if err != nil {
		return err
	}
	e, err := api.Exchange(ctx, firstExchange)
	if err != nil {
		return fmt.Errorf("read the exchange: %w", err)
	}
	if e.Name != ExchangeName {
		return fmt.Errorf("exchange %d is %q, not %q: the database was not empty; run make down", firstExchange, e.Name,
			ExchangeName)
	}
	return nil
}

// registerBroker tells which broker the exchange is on, and binds the two.
func (s *Stack) registerBroker(ctx context.Context, api *managerapi.Client) error {
	err := ensure(ctx, api, "/messaging/brokers/1", "/messaging/brokers", map[string]any{"name": ExchangeName})
	if err != nil {
		return err
	}
	for path, body := range map[string]map[string]any{
		"/messaging/brokers/1/connections": {"username": s.RabbitMQ.User, "password": s.RabbitMQ.Password,
			"host": "127.0.0.1",
			"port": s.brokerPort(Own[0], 1), "virtual_host": "/"},
		fmt.Sprintf("/messaging/exchanges/%d/brokers", firstExchange): {"messaging_broker_id": 1},
	} {
		var there []map[string]any
		if err := api.Do(ctx, http.MethodGet, path, nil, &there); err != nil {
			return fmt.Errorf("register the broker: %w", err)
		}
		if len(there) > 0 {
			continue
		}
		if _, err := api.Create(ctx, path, body); err != nil {
			return fmt.Errorf("register the broker: %w", err)
		}
	}
	return nil
}

// registerComponent makes the gold standard of a type and its component in the exchange, which runs recorded already,
// or nothing if that is empty.
func (s *Stack) registerComponent(ctx context.Context, api *managerapi.Client, v Service,
	wanted, recorded string) error {
	gold := map[string]any{"type": v.Type, "source_repo": s.SourceRepo(v), "source_repo_git_ref": wanted,
		"auto_upgrade_enabled": true}
	if err := ensure(ctx, api, "/system_component_refs/"+string(v.Type), "/system_component_refs", gold); err != nil {
		return err
	}
	if _, err := FindComponent(ctx, api, v.Type); !fault.Is(err, fault.NotFound) {
		return err
	}
	c := map[string]any{"type": v.Type, "messaging_exchange_id": firstExchange,
		"deployment_repo": s.DeploymentRepo(v), "deployment_repo_git_ref": Deployed, "upgrade_strategy": component.Hourly}
	if recorded != "" {
		c["source_repo"], c["source_repo_git_ref"] = s.SourceRepo(v), recorded
	}
	if _, err := api.Create(ctx, "/system_components", c); err != nil {
		return fmt.Errorf("register component %s: %w", v.Type, err)
	}
	return nil
}

// ensure creates a thing unless it can be read.
func ensure(ctx context.Context, api *managerapi.Client, at, collection string, body map[string]any) error {
	err := api.Do(ctx, http.MethodGet, at, nil, nil)
	if fault.Is(err, fault.NotFound) {
		_, err = api.Create(ctx, collection, body)
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", at, err)
	}
	return nil
}
