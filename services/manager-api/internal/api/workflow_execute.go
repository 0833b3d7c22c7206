package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

func (s *Server) registerWorkflowExecute() {
	s.workflow("POST /workflows/{id}/execute", Operators, s.executeWorkflow)
}

// executeOptions are the options of an execution. A value that is no number is dropped, as the predecessor did.
type executeOptions struct {
	ForceBuild     any    `json:"force_build,omitempty"`
	BuildExchange  *int64 `json:"build_messaging_exchange_id,omitempty"`
	DeployExchange *int64 `json:"deploy_messaging_exchange_id,omitempty"`
}

// executeWorkflow is claimed in the database: 202 once, then 409.
func (s *Server) executeWorkflow(w http.ResponseWriter, r *http.Request, row engine.WorkflowView) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	options := executeOptions{ForceBuild: f.params["force_build"],
		BuildExchange: f.integer("build_messaging_exchange_id"), DeployExchange: f.integer("deploy_messaging_exchange_id")}
	for _, id := range []*int64{options.BuildExchange, options.DeployExchange} {
		if id == nil {
			continue
		}
		if err := inScope(r.Context(), component.ExchangeID(*id)); err != nil {
			return err
		}
	}
	raw := json.RawMessage(nil)
	if options != (executeOptions{}) {
		if raw, err = json.Marshal(options); err != nil {
			return fmt.Errorf("encode execute options: %w", err)
		}
	}
	err = s.Engine.ExecuteWorkflow(r.Context(), row.ID, raw)
	if fault.Is(err, fault.Conflict) {
		return textError(http.StatusConflict, fault.Public(err).Message)
	}
	if err != nil {
		return err
	}
	answerLocation(w, http.StatusAccepted, workflowPath(row.ID))
	return nil
}
