package api

import (
	"encoding/json"
	"net/http"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
)

const (
	moduleItem   = "MessagingExchangeModule"
	moduleDBItem = "MessagingExchangeModuleDB" // the predecessor's name for it where a hostname is unknown
)

func (s *Server) registerModules() {
	s.byID("GET /messaging/exchanges/{id}/modules", moduleItem, Readers, s.listModules)
	s.byID("POST /messaging/exchanges/{id}/modules", moduleItem, Modules, s.beatModule)
	s.byID("GET /messaging/exchanges/{id}/modules/{hostname}", moduleItem, Readers, s.showModule)
	s.byID("DELETE /messaging/exchanges/{id}/modules/{hostname}", moduleItem, Admins, s.deleteModule)
}

func (s *Server) listModules(w http.ResponseWriter, r *http.Request, id int64) error {
	p, err := s.within(r, id)
	if err != nil {
		return err
	}
	return stream(w, func(emit func(presence.ModuleRow) error) error {
		return s.Presence.EachModule(r.Context(), p,
			emit)
	})
}

func (s *Server) showModule(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.exchange(r, id); err != nil {
		return err
	}
	row, err := s.Presence.Module(r.Context(), component.ExchangeID(id), r.PathValue("hostname"))
	if err != nil {
		return namedError(err, moduleDBItem)
	}
	writeJSON(w, http.StatusOK, row)
	return nil
}

// beatModule is a heartbeat by REST: it updates the module in place, or registers it.
func (s *Server) beatModule(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.exchange(r, id); err != nil {
		return namedError(err, exchangeItem)
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	beat := readBeat(f)
	if err := f.err(moduleItem); err != nil {
		return err
	}
	if beat.Validate() != nil { // lengths and forms: a hostname with a slash could not be named in a path
		return invalidRequest(moduleItem)
	}
	if _, err := s.Presence.Beat(r.Context(), component.ExchangeID(id), []messages.ModuleStatus{beat}); err != nil {
		return err
	}
	answerLocation(w, http.StatusCreated, exchangePath(id)+"/modules/"+beat.Hostname)
	return nil
}

func readBeat(f *form) messages.ModuleStatus {
	optional := func(name string) string {
		if v := f.text(name); v != nil {
			return *v
		}
		return ""
	}
	m := messages.ModuleStatus{EventType: "status",
		SourceRepo: optional("source_repo"), SourceRepoGitRef: optional("source_repo_git_ref"),
		DeploymentRepo: optional("deployment_repo"), DeploymentRepoGitRef: optional("deployment_repo_git_ref"),
		Service: optional("service"), BootID: optional("boot_id"),
		Hostname: f.need("hostname"), Type: f.need("type"), Status: f.need("status")}
	if !f.given("workload") {
		f.bad("workload", blank)
	}
	m.Workload = json.RawMessage(f.json("workload"))
	return m
}

func (s *Server) deleteModule(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.exchange(r, id); err != nil {
		if fault.Is(err, fault.NotFound) {
			return emptyError(http.StatusNotFound)
		}
		return err
	}
	if err := s.Presence.DeleteModule(r.Context(), component.ExchangeID(id), r.PathValue("hostname")); err != nil {
		return namedError(err, moduleDBItem)
	}
	noContent(w, http.StatusNoContent)
	return nil
}
