package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

const brokerItem = "MessagingBroker"

func (s *Server) registerBrokers() {
	s.family("GET /messaging/brokers", brokerItem, Members, s.listBrokers)
	s.once("POST /messaging/brokers", brokerItem, Admins, s.createBroker)
	s.byID("GET /messaging/brokers/{id}", brokerItem, Members, s.showBroker)
	s.byID("PUT /messaging/brokers/{id}", brokerItem, Admins, s.updateBroker)
	s.byID("DELETE /messaging/brokers/{id}", brokerItem, Admins, s.deleteBroker)
	s.byID("GET /messaging/brokers/{id}/connections", brokerItem, Members, s.listConnections)
	s.byID("POST /messaging/brokers/{id}/connections", brokerItem, Admins, s.createConnection)
	s.byID("DELETE /messaging/brokers/{id}/connections", brokerItem, Admins, s.deleteConnections)
	s.byID("PUT /messaging/brokers/{id}/connections/{connection}", brokerItem, Admins, s.updateConnection)
	s.byID("DELETE /messaging/brokers/{id}/connections/{connection}", brokerItem, Admins, s.deleteConnection)
}

func brokerPath(id int64) string { return "/messaging/brokers/" + strconv.FormatInt(id, 10) }

func (s *Server) listBrokers(w http.ResponseWriter, r *http.Request) error {
	p, err := partOf(r, brokerItem)
	if err != nil {
		return err
	}
	return stream(w, func(emit func(registry.BrokerRow) error) error {
		return s.Registry.EachBroker(r.Context(), p,
			emit)
	})
}

// broker reads the broker of a request, if the caller's exchange may use it.
func (s *Server) broker(r *http.Request, id int64) (registry.BrokerRow, error) {
	return s.Registry.Broker(r.Context(), id, callerOf(r.Context()).ExchangeID)
}

func (s *Server) showBroker(w http.ResponseWriter, r *http.Request, id int64) error {
	row, err := s.broker(r, id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, row)
	return nil
}

// createBroker checks in the predecessor's order: the name is there, it is free, the other fields.
func (s *Server) createBroker(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	name, err := f.needName(brokerItem)
	if err != nil {
		return err
	}
	taken, err := s.Registry.BrokerNamed(r.Context(), name)
	if err != nil {
		return err
	}
	if taken {
		return alreadyExists(brokerItem)
	}
	spec := registry.BrokerSpec{Name: name, FailoverID: f.integer("failover_broker_id")}
	if err := f.err(brokerItem); err != nil {
		return err
	}
	id, err := s.Registry.CreateBroker(r.Context(), spec)
	if err != nil {
		return namedError(err, brokerItem)
	}
	answerLocation(w, http.StatusCreated, brokerPath(id))
	return nil
}

func (s *Server) updateBroker(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.broker(r, id); err != nil {
		return err
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	name, failover := f.need("name"), f.integer("failover_broker_id")
	if err := f.err(brokerItem); err != nil {
		return err
	}
	err = s.Registry.UpdateBroker(r.Context(), id, func(spec *registry.BrokerSpec) error {
		spec.Name = name
		if f.has("failover_broker_id") {
			spec.FailoverID = failover
		}
		return nil
	})
	if err != nil {
		return namedError(err, brokerItem)
	}
	answerLocation(w, http.StatusNoContent, brokerPath(id))
	return nil
}

func (s *Server) deleteBroker(w http.ResponseWriter, r *http.Request, id int64) error {
	if err := s.Registry.DeleteBroker(r.Context(), id, cascade(r)); err != nil {
		return namedError(err, brokerItem)
	}
	noContent(w, http.StatusNoContent)
	return nil
}

// connection is a connection as it is shown; the password is null for people.
type connection struct {
	registry.ConnectionRow
	Password *string `json:"password"`
}

// listConnections shows passwords to services and modules alone, of a broker that their exchange may use; each such
// read is in the journal (docs/rest.md#broker-passwords-and-other-secrets).
func (s *Server) listConnections(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.broker(r, id); err != nil {
		return err
	}
	caller := callerOf(r.Context())
	may := caller.ExchangeID != 0 && (caller.Role == RoleService || caller.Role == RoleModule)
	read := s.Registry.Connections
	if may {
		read = s.openConnections
	}
	rows, err := read(r.Context(), id)
	if err != nil {
		return err
	}
	shown := make([]connection, 0, len(rows))
	for _, row := range rows {
		c := connection{ConnectionRow: row}
		if may {
			password := row.Password.Reveal()
			c.Password = &password
		}
		shown = append(shown, c)
	}
	writeJSON(w, http.StatusOK, shown)
	return nil
}

func (s *Server) openConnections(ctx context.Context, id int64) ([]registry.ConnectionRow, error) {
	return s.Registry.OpenConnections(ctx, id, s.Keys)
}

func (s *Server) createConnection(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.broker(r, id); err != nil {
		return err
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	spec := registry.ConnectionSpec{Port: readPort(f), Username: f.need("username")}
	password := boot.Secret(f.need("password"))
	spec.Host, spec.VirtualHost = f.need("host"), f.need("virtual_host")
	if err := f.err(brokerItem); err != nil {
		return err
	}
	if _, err := s.Registry.CreateConnection(r.Context(), id, spec, password, s.Keys); err != nil {
		return withoutKey(err)
	}
	answerLocation(w, http.StatusCreated, brokerPath(id)+"/connections")
	return nil
}

// withoutKey says what an operator has to do before a password can be stored.
func withoutKey(err error) error {
	if errors.Is(err, seal.ErrNoKey) {
		return fault.Wrap(fault.Unavailable, err, "no seal key is configured: passwords cannot be stored")
	}
	return err
}

// readPort reads an optional TCP port.
func readPort(f *form) *int64 {
	port := f.integer("port")
	if port != nil && (*port < 1 || *port > 65535) {
		f.bad("port", invalid)
	}
	return port
}

// updateConnection changes what is given; a password that is not given stays.
func (s *Server) updateConnection(w http.ResponseWriter, r *http.Request, id int64) error {
	connectionID, ok := pathID(r, "connection")
	if !ok {
		return notFound(brokerItem + "Connection")
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	port := readPort(f)
	given := map[string]string{}
	for _, name := range []string{"username", "password", "host", "virtual_host"} {
		if f.has(name) {
			given[name] = f.need(name)
		}
	}
	edit := func(spec *registry.ConnectionSpec) (*boot.Secret, error) {
		if err := f.err(brokerItem); err != nil { // after 404
			return nil, err
		}
		for name, dst := range map[string]*string{"username": &spec.Username, "host": &spec.Host,
			"virtual_host": &spec.VirtualHost} {
			if v, ok := given[name]; ok {
				*dst = v
			}
		}
		if f.has("port") {
			spec.Port = port
		}
		if v, ok := given["password"]; ok {
			secret := boot.Secret(v)
			return &secret, nil
		}
		return nil, nil
	}
	if err := s.Registry.UpdateConnection(r.Context(), id, connectionID, s.Keys, edit); err != nil {
		return namedError(withoutKey(err), brokerItem+"Connection")
	}
	answerLocation(w, http.StatusNoContent, brokerPath(id)+"/connections")
	return nil
}

func (s *Server) deleteConnection(w http.ResponseWriter, r *http.Request, id int64) error {
	connectionID, ok := pathID(r, "connection")
	if !ok {
		return notFound(brokerItem + "Connection")
	}
	if err := s.Registry.DeleteConnection(r.Context(), id, connectionID); err != nil {
		return namedError(err, brokerItem+"Connection")
	}
	noContent(w, http.StatusNoContent)
	return nil
}

func (s *Server) deleteConnections(w http.ResponseWriter, r *http.Request, id int64) error {
	if err := s.Registry.DeleteConnections(r.Context(), id); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
