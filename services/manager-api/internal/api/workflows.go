package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

const workflowItem = "Workflow"

func (s *Server) registerWorkflows() {
	s.family("GET /workflows", workflowItem, Readers, s.listWorkflows)
	s.once("POST /workflows", workflowItem, Operators, s.createWorkflow)
	s.workflow("GET /workflows/{id}", Readers, s.showWorkflow)
	s.workflow("PUT /workflows/{id}", Operators, s.updateWorkflow)
	s.workflow("DELETE /workflows/{id}", Operators, s.deleteWorkflow)
	s.registerWorkflowExecute()
}

// workflow registers a route of one workflow: what is no uuid, unknown, or of a foreign exchange is 404 without a body.
func (s *Server) workflow(pattern string, access Access, h func(http.ResponseWriter, *http.Request,
	engine.WorkflowView) error) {
	s.family(pattern, workflowItem, access, func(w http.ResponseWriter, r *http.Request) error {
		id, err := uuid.Parse(r.PathValue("id"))
		if err != nil || len(r.PathValue("id")) != 36 {
			return emptyError(http.StatusNotFound)
		}
		row, err := s.Engine.Workflow(r.Context(), id.String())
		if err == nil && callerOf(r.Context()).ExchangeID != 0 && (row.ExchangeID == nil ||
			!callerOf(r.Context()).Within(*row.ExchangeID)) {
			return emptyError(http.StatusNotFound)
		}
		if err != nil {
			return withoutBody(err)
		}
		return withoutBody(h(w, r, row))
	})
}

// withoutBody gives this family's failures their empty bodies.
func withoutBody(err error) error {
	switch {
	case fault.Is(err, fault.NotFound):
		return emptyError(http.StatusNotFound)
	case fault.CodeOf(err) == engine.CodeUpgradeOwned:
		return emptyError(http.StatusConflict)
	default:
		return err
	}
}

func workflowPath(id string) string { return "/workflows/" + id }

// listWorkflows shows the last 24 hours. source_repo=X means deployment_repo=X_docker, as it did.
func (s *Server) listWorkflows(w http.ResponseWriter, r *http.Request) error {
	p, err := partOf(r, workflowItem)
	if err != nil {
		return err
	}
	hours, ok := queryInt(r, "lookback", 24)
	if !ok {
		return invalidRequest(workflowItem)
	}
	q := engine.WorkflowQuery{Part: p, Lookback: hours}
	query := r.URL.Query()
	if repo := query.Get("deployment_repo"); query.Has("deployment_repo") {
		q.DeploymentRepo = &repo
	} else if query.Has("source_repo") {
		repo := query.Get("source_repo") + "_docker"
		q.DeploymentRepo = &repo
	}
	return stream(w, func(emit func(engine.WorkflowView) error) error {
		return s.Engine.EachWorkflow(r.Context(), q,
			emit)
	})
}

func (s *Server) showWorkflow(w http.ResponseWriter, _ *http.Request, row engine.WorkflowView) error {
	writeJSON(w, http.StatusOK, row)
	return nil
}

func (s *Server) createWorkflow(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	var spec engine.WorkflowSpec
	readWorkflow(f, &spec)
	if len(f.wrong) > 0 {
		return flatFieldsError(f.wrong)
	}
	spec.DeploymentRepo, spec.SourceRepo = trimmed(spec.DeploymentRepo), trimmed(spec.SourceRepo)
	spec.Milestones = withConfig(spec.Milestones)
	id, err := s.Engine.CreateWorkflow(r.Context(), spec, ownExchange(r))
	if err != nil {
		return err
	}
	answerLocation(w, http.StatusCreated, workflowPath(id))
	return nil
}

// readWorkflow changes what is given: null clears, what is absent stays.
func readWorkflow(f *form, w *engine.WorkflowSpec) {
	for name, dst := range map[string]**string{
		"deployment_repo": &w.DeploymentRepo, "deployment_repo_git_ref": &w.DeploymentRepoGitRef,
		"source_repo":         &w.SourceRepo,
		"source_repo_git_ref": &w.SourceRepoGitRef, "source_commit_hash": &w.SourceCommitHash, "current_step": &w.CurrentStep,
		"elapsed_step_time": &w.ElapsedStepTime, "elapsed_workflow_time": &w.ElapsedWorkflowTime,
		"workflow_duration": &w.WorkflowDuration,
	} {
		if f.has(name) {
			*dst = f.text(name)
		}
	}
	for name, read := range map[string]struct {
		dst *db.JSON
		as  func(string) db.JSON
	}{
		"milestones": {&w.Milestones, f.texts}, "event_log": {&w.EventLog, f.texts},
		"workflow_step_durations": {&w.StepDurations, f.object}, "execute_options": {&w.ExecuteOptions, f.object},
	} {
		if f.has(name) {
			*read.dst = read.as(name)
		}
	}
	if f.has("workflow_error") {
		w.Error = f.boolean("workflow_error")
	}
	if b := f.boolean("workflow_completed"); b != nil {
		w.Completed = *b
	}
	if f.has("scheduled_start_time") {
		w.ScheduledStartTime = f.instant("scheduled_start_time")
	}
}

// texts reads a JSON array of strings.
func (f *form) texts(name string) db.JSON {
	list, ok := f.params[name].([]any)
	for _, v := range list {
		if _, text := v.(string); !text {
			ok = false
		}
	}
	if f.given(name) && !ok {
		f.bad(name, invalid)
		return nil
	}
	return f.json(name)
}

// trimmed is a repository without surrounding blanks and slashes at its end.
func trimmed(repo *string) *string {
	if repo == nil {
		return nil
	}
	t := strings.TrimRight(strings.TrimSpace(*repo), `/\`)
	return &t
}

// withConfig puts config before milestones that have neither build nor config.
func withConfig(milestones db.JSON) db.JSON {
	var list []string
	if len(milestones) == 0 || json.Unmarshal(milestones, &list) != nil {
		return milestones
	}
	for _, m := range list {
		if m == "build" || m == "config" {
			return milestones
		}
	}
	raw, err := json.Marshal(append([]string{"config"}, list...))
	if err != nil {
		return milestones
	}
	return raw
}

func (s *Server) updateWorkflow(w http.ResponseWriter, r *http.Request, row engine.WorkflowView) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	err = s.Engine.UpdateWorkflow(r.Context(), row.ID, func(spec *engine.WorkflowSpec) error {
		fresh := form{params: f.params} // a transaction may run twice
		readWorkflow(&fresh, spec)
		if len(fresh.wrong) > 0 {
			return flatFieldsError(fresh.wrong)
		}
		return nil
	})
	if fault.CodeOf(err) == engine.CodeWorkflowStarted {
		return textError(http.StatusConflict, fault.Public(err).Message)
	}
	if err != nil {
		return err
	}
	answerLocation(w, http.StatusNoContent, workflowPath(row.ID))
	return nil
}

func (s *Server) deleteWorkflow(w http.ResponseWriter, r *http.Request, row engine.WorkflowView) error {
	if err := s.Engine.DeleteWorkflow(r.Context(), row.ID); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
