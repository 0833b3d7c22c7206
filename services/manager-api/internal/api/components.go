package api

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

const componentItem = "SystemComponent"

func (s *Server) registerComponents() {
	s.family("GET /system_components", componentItem, Readers, s.listComponents)
	s.once("POST /system_components", componentItem, Operators, s.createComponent)
	s.byID("GET /system_components/{id}", componentItem, Readers, s.showComponent)
	s.onceByID("PUT /system_components/{id}", componentItem, Operators, s.updateComponent)
	s.registerComponentUpgrade()
	s.byID("DELETE /system_components/{id}", componentItem, Operators, s.deleteComponent)
}

func componentPath(id component.ID) string {
	return "/system_components/" + strconv.FormatInt(int64(id), 10)
}
func numbered(id int64) string               { return componentItem + " " + strconv.FormatInt(id, 10) }
func namedComponent(t component.Type) string { return componentItem + ` "` + string(t) + `"` }

// tagOfComponent leaves the automatic checks out: an hourly verdict must not refuse an operator's change.
func tagOfComponent(c registry.ComponentView) string {
	return entityTag([]any{c.ComponentSpec, c.SourceRepo, c.SourceRepoGitRef, c.Status, c.UpgradeStatus})
}

func (s *Server) listComponents(w http.ResponseWriter, r *http.Request) error {
	p, err := partOf(r, componentItem)
	if err != nil {
		return err
	}
	var only *component.Type
	if query := r.URL.Query(); query.Has("type") {
		t := component.Type(query.Get("type"))
		only = &t
	}
	return stream(w, func(emit func(registry.ComponentView) error) error {
		return s.Registry.EachComponent(r.Context(), p, only, emit)
	})
}

// component reads the component of a request, if its exchange is the caller's.
func (s *Server) component(r *http.Request, id int64) (registry.ComponentView, error) {
	row, err := s.Registry.Component(r.Context(), component.ID(id))
	if err == nil {
		err = inScope(r.Context(), row.ExchangeID)
	}
	return row, err
}

func (s *Server) showComponent(w http.ResponseWriter, r *http.Request, id int64) error {
	row, err := s.component(r, id)
	if err != nil {
		return namedError(err, numbered(id))
	}
	writeTagged(w, row, tagOfComponent(row))
	return nil
}

func (s *Server) createComponent(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	runs := registry.Adoption{}
	if v := f.text("source_repo"); v != nil {
		runs.SourceRepo = *v
	}
	if v := f.text("source_repo_git_ref"); v != nil {
		runs.SourceRepoGitRef = *v
	}
	spec := s.readComponent(r, f, registry.ComponentSpec{})
	if err := f.err(componentItem); err != nil {
		return err
	}
	id, err := s.Registry.CreateComponent(r.Context(), spec, runs)
	if err != nil {
		return namedError(err, namedComponent(spec.Type))
	}
	answerLocation(w, http.StatusCreated, componentPath(id))
	return nil
}

// readComponent reads what an operator states; what is the server's is not looked at. proof and follow_deployment are
// kept where none is given.
func (s *Server) readComponent(r *http.Request, f *form, kept registry.ComponentSpec) registry.ComponentSpec {
	given := f.text("proof")
	spec := registry.ComponentSpec{
		Type:                 component.Type(f.need("type")),
		ExchangeID:           component.ExchangeID(f.needInteger("messaging_exchange_id")),
		DeploymentRepo:       f.need("deployment_repo"),
		DeploymentRepoGitRef: f.need("deployment_repo_git_ref"),
	}
	spec.Strategy = readStrategy(f)
	spec.Proof = readProof(f, spec.Type, given, kept.Proof)
	spec.FollowDeployment = kept.FollowDeployment
	if b := f.boolean("follow_deployment"); b != nil {
		spec.FollowDeployment = *b
	}
	s.checkExchange(r, f, spec.ExchangeID)
	return spec
}

// readProof is the stated proof, else the kept one if it is enough for the type, which may have changed, else the
// type's own.
func readProof(f *form, t component.Type, given *string, kept component.ProofKind) component.ProofKind {
	switch {
	case given == nil && (kept == "" || !upgrade.Proves(kept, t)):
		return component.DefaultProof(t)
	case given == nil:
		return kept
	case *given != string(component.ProofModules) && *given != string(component.ProofUnits):
		f.bad("proof", invalid)
	case !upgrade.Proves(component.ProofKind(*given), t):
		f.bad("proof", fmt.Sprintf("can't be %s for the type %s: that it is ready does not show that it hears; use "+
			"modules, or leave it out", *given, t))
	}
	return component.ProofKind(*given)
}

func readStrategy(f *form) component.Strategy {
	if !f.given("upgrade_strategy") {
		f.bad("upgrade_strategy", blank)
		return ""
	}
	v := f.text("upgrade_strategy")
	if v == nil {
		return ""
	}
	strategy := component.Strategy(*v)
	if strategy != component.Manual && strategy != component.Hourly {
		f.bad("upgrade_strategy", invalid)
	}
	return strategy
}

// checkExchange says in front that the exchange is missing, unknown, or not the caller's.
func (s *Server) checkExchange(r *http.Request, f *form, id component.ExchangeID) {
	if !f.given("messaging_exchange_id") {
		f.before("messaging_exchange_id", "Missing MessagingExchange")
		return
	}
	if id == 0 {
		return // no number: said already
	}
	if _, err := s.exchange(r, int64(id)); err != nil {
		f.before("messaging_exchange_id", "Invalid MessagingExchange")
	}
}

func (s *Server) updateComponent(w http.ResponseWriter, r *http.Request, id int64) error {
	old, err := s.component(r, id)
	if err != nil {
		return namedError(err, numbered(id))
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	spec := s.readComponent(r, f, old.ComponentSpec)
	if err := f.err(numbered(id)); err != nil {
		return err
	}
	err = s.Registry.UpdateComponent(r.Context(), old.ID, spec, ifMatch(r, tagOfComponent))
	if fault.Is(err, fault.NotFound) {
		return notFound(numbered(id))
	}
	if err != nil {
		return namedError(err, namedComponent(spec.Type))
	}
	answerLocation(w, http.StatusNoContent, componentPath(old.ID))
	return nil
}

func (s *Server) deleteComponent(w http.ResponseWriter, r *http.Request, id int64) error {
	old, err := s.component(r, id)
	if err != nil {
		return namedError(err, numbered(id))
	}
	if err := s.Registry.DeleteComponent(r.Context(), old.ID, ifMatch(r, tagOfComponent)); err != nil {
		return namedError(err, numbered(id))
	}
	answerLocation(w, http.StatusNoContent, "")
	return nil
}
