package api

import (
	"net/http"
	"strconv"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

const exchangeItem = "MessagingExchange"

func (s *Server) registerExchanges() {
	s.family("GET /messaging/exchanges", exchangeItem, Members, s.listExchanges)
	s.once("POST /messaging/exchanges", exchangeItem, Admins, s.createExchange)
	s.byID("GET /messaging/exchanges/{id}", exchangeItem, Members, s.showExchange)
	s.byID("PUT /messaging/exchanges/{id}", exchangeItem, Admins, s.updateExchange)
	s.byID("DELETE /messaging/exchanges/{id}", exchangeItem, Admins, s.deleteExchange)
	s.byID("GET /messaging/exchanges/{id}/brokers", exchangeItem, Members, s.listRestrictions)
	s.byID("POST /messaging/exchanges/{id}/brokers", exchangeItem, Admins, s.restrict)
	s.byID("DELETE /messaging/exchanges/{id}/brokers", exchangeItem, Admins, s.unrestrict)
	s.byID("GET /messaging/exchanges/{id}/clusters", exchangeItem, Readers, s.clustersOfExchange)
	s.byID("GET /messaging/exchanges/{id}/system_components", exchangeItem, Readers, s.componentsOfExchange)
}

func exchangePath(id int64) string { return "/messaging/exchanges/" + strconv.FormatInt(id, 10) }

func (s *Server) listExchanges(w http.ResponseWriter, r *http.Request) error {
	p, err := partOf(r, exchangeItem)
	if err != nil {
		return err
	}
	return stream(w, func(emit func(registry.ExchangeView) error) error {
		return s.Registry.EachExchange(r.Context(), p, emit)
	})
}

// exchange reads the exchange of a request; outside of the caller's own nothing is found.
func (s *Server) exchange(r *http.Request, id int64) (registry.ExchangeView, error) {
	if err := inScope(r.Context(), component.ExchangeID(id)); err != nil {
		return registry.ExchangeView{}, err
	}
	return s.Registry.Exchange(r.Context(), component.ExchangeID(id))
}

func (s *Server) showExchange(w http.ResponseWriter, r *http.Request, id int64) error {
	row, err := s.exchange(r, id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, row)
	return nil
}

// needName reads the name of brokers and exchanges: without a string of at least one character the request is invalid.
func (f *form) needName(item string) (string, error) {
	v, ok := f.params["name"].(string)
	if !ok || v == "" {
		return "", invalidRequest(item)
	}
	if name := f.text("name"); name != nil {
		return *name, nil
	}
	return "", f.err(item)
}

// createExchange checks in the predecessor's order: the name is there, it is free, the other fields.
func (s *Server) createExchange(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	name, err := f.needName(exchangeItem)
	if err != nil {
		return err
	}
	_, err = s.Registry.ExchangeNamed(r.Context(), name)
	if err == nil {
		return alreadyExists(exchangeItem)
	}
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	spec := registry.ExchangeSpec{Name: name}
	if err := readExchange(f, &spec); err != nil {
		return err
	}
	id, err := s.Registry.CreateExchange(r.Context(), spec)
	if err != nil {
		return namedError(err, exchangeItem)
	}
	answerLocation(w, http.StatusCreated, exchangePath(int64(id)))
	return nil
}

// readExchange changes what is given: null clears, what is absent stays.
func readExchange(f *form, spec *registry.ExchangeSpec) error {
	if f.has("failover_exchange_id") {
		spec.FailoverID = exchangeID(f.integer("failover_exchange_id"))
	}
	if f.has("parent_exchange_id") {
		spec.ParentID = exchangeID(f.integer("parent_exchange_id"))
	}
	if f.has("routing_key_fragment") {
		spec.Fragment = f.text("routing_key_fragment")
	}
	return f.err(exchangeItem)
}

func exchangeID(n *int64) *component.ExchangeID { return (*component.ExchangeID)(n) }

func (s *Server) updateExchange(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.exchange(r, id); err != nil {
		return err
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	name := f.need("name")
	if err := f.err(exchangeItem); err != nil {
		return err
	}
	err = s.Registry.UpdateExchange(r.Context(), component.ExchangeID(id), func(spec *registry.ExchangeSpec) error {
		spec.Name = name
		fresh := form{params: f.params} // a transaction may run twice
		return readExchange(&fresh, spec)
	})
	if err != nil {
		return namedError(err, exchangeItem)
	}
	answerLocation(w, http.StatusNoContent, exchangePath(id))
	return nil
}

func cascade(r *http.Request) bool {
	yes, _ := asBool(r.URL.Query().Get("cascade"))
	return yes
}

func (s *Server) deleteExchange(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.exchange(r, id); err != nil {
		return err
	}
	if err := s.Registry.DeleteExchange(r.Context(), component.ExchangeID(id), cascade(r)); err != nil {
		return namedError(err, exchangeItem)
	}
	noContent(w, http.StatusNoContent)
	return nil
}

// within reads the part of a list below one exchange.
func (s *Server) within(r *http.Request, id int64) (db.Part, error) {
	if _, err := s.exchange(r, id); err != nil {
		return db.Part{}, err
	}
	p, err := partOf(r, exchangeItem)
	p.Exchange = component.ExchangeID(id)
	return p, err
}

func (s *Server) listRestrictions(w http.ResponseWriter, r *http.Request, id int64) error {
	p, err := s.within(r, id)
	if err != nil {
		return err
	}
	return stream(w, func(emit func(registry.RestrictionRow) error) error {
		return s.Registry.EachRestriction(r.Context(), p, emit)
	})
}

// restrict checks in the predecessor's order: the parameter is there, the exchange, the broker, the pair.
func (s *Server) restrict(w http.ResponseWriter, r *http.Request, id int64) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	broker := f.integer("messaging_broker_id")
	if broker == nil {
		return invalidRequest(exchangeItem)
	}
	if _, err := s.exchange(r, id); err != nil {
		return err
	}
	err = s.Registry.Restrict(r.Context(), component.ExchangeID(id), *broker)
	switch fault.CodeOf(err) {
	case postgres.CodeReference:
		return invalidRequest(brokerItem)
	case postgres.CodeDuplicate:
		return emptyError(http.StatusConflict)
	}
	if err != nil {
		return err
	}
	answerLocation(w, http.StatusCreated, exchangePath(id)+"/brokers")
	return nil
}

func (s *Server) unrestrict(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.exchange(r, id); err != nil {
		return err
	}
	if err := s.Registry.Unrestrict(r.Context(), component.ExchangeID(id)); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}

func (s *Server) clustersOfExchange(w http.ResponseWriter, r *http.Request, id int64) error {
	p, err := s.within(r, id)
	if err != nil {
		return err
	}
	var builds *bool
	if query := r.URL.Query(); query.Has("allow_docker_builds") {
		yes, ok := asBool(query.Get("allow_docker_builds"))
		if !ok {
			return invalidRequest(exchangeItem)
		}
		builds = &yes
	}
	return stream(w, func(emit func(registry.ClusterRow) error) error {
		return s.Registry.EachCluster(r.Context(), p, builds, emit)
	})
}

func (s *Server) componentsOfExchange(w http.ResponseWriter, r *http.Request, id int64) error {
	p, err := s.within(r, id)
	if fault.Is(err, fault.NotFound) {
		return notFound(exchangeItem + " " + strconv.FormatInt(id, 10))
	}
	if err != nil {
		return err
	}
	return stream(w, func(emit func(registry.ComponentView) error) error {
		return s.Registry.EachComponent(r.Context(), p, nil, emit)
	})
}
