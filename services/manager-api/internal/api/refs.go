package api

import (
	"net/http"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

const refItem = "SystemComponentRef"

func (s *Server) registerRefs() {
	s.family("GET /system_component_refs", refItem, Readers, s.listRefs)
	s.family("GET /system_component_refs/{type}", refItem, Readers, s.showRef)
	s.once("POST /system_component_refs", refItem, Admins, s.createRef)
	s.once("PUT /system_component_refs/{type}", refItem, Admins, s.updateRef)
	s.family("DELETE /system_component_refs/{type}", refItem, Admins, s.deleteRef)
}

func namedRef(t component.Type) string { return refItem + ` "` + string(t) + `"` }

func tagOfRef(row registry.RefRow) string { return entityTag(row.Ref) }

func (s *Server) listRefs(w http.ResponseWriter, r *http.Request) error {
	p, err := partOf(r, refItem)
	if err != nil {
		return err
	}
	return stream(w, func(emit func(registry.RefRow) error) error { return s.Registry.EachRef(r.Context(), p, emit) })
}

func (s *Server) showRef(w http.ResponseWriter, r *http.Request) error {
	t := component.Type(r.PathValue("type"))
	row, err := s.Registry.Ref(r.Context(), t)
	if err != nil {
		return namedError(err, namedRef(t))
	}
	writeTagged(w, row, tagOfRef(row))
	return nil
}

// createRef checks in the predecessor's order: the type is there, it is free, the other fields.
func (s *Server) createRef(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	t := component.Type("")
	if f.given("type") && f.params["type"] != "" {
		t = component.Type(f.need("type"))
	} else {
		f.bad("type", "type is required")
	}
	if err := f.err(refItem); err != nil {
		return err
	}
	_, err = s.Registry.Ref(r.Context(), t)
	if err == nil {
		return alreadyExists(namedRef(t))
	}
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	ref := readRef(f, t, nil)
	if err := f.err(namedRef(t)); err != nil {
		return err
	}
	if err := s.Registry.CreateRef(r.Context(), ref); err != nil {
		return namedError(err, namedRef(t))
	}
	answerLocation(w, http.StatusCreated, "/system_component_refs/"+string(t))
	return nil
}

// readRef reads what an admin states. follow is kept where none is given: a client of the former release does not know
// it. null takes it back.
func readRef(f *form, t component.Type, follow *bool) component.Ref {
	ref := component.Ref{Type: t, SourceRepo: f.need("source_repo"), SourceRepoGitRef: f.need("source_repo_git_ref")}
	if !f.given("auto_upgrade_enabled") {
		f.bad("auto_upgrade_enabled", blank)
	} else if b := f.boolean("auto_upgrade_enabled"); b != nil {
		ref.AutoUpgradeEnabled = *b
	}
	if ref.Follow = follow; f.has("follow") {
		ref.Follow = f.boolean("follow")
	}
	return ref
}

func (s *Server) updateRef(w http.ResponseWriter, r *http.Request) error {
	t := component.Type(r.PathValue("type"))
	old, err := s.Registry.Ref(r.Context(), t)
	if err != nil {
		return namedError(err, namedRef(t))
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	ref := readRef(f, t, old.Follow)
	if err := f.err(namedRef(t)); err != nil {
		return err
	}
	if err := s.Registry.UpdateRef(r.Context(), ref, ifMatch(r, tagOfRef)); err != nil {
		return namedError(err, namedRef(t))
	}
	answerLocation(w, http.StatusNoContent, "/system_component_refs/"+string(t))
	return nil
}

func (s *Server) deleteRef(w http.ResponseWriter, r *http.Request) error {
	t := component.Type(r.PathValue("type"))
	if err := s.Registry.DeleteRef(r.Context(), t, ifMatch(r, tagOfRef)); err != nil {
		return namedError(err, namedRef(t))
	}
	answerLocation(w, http.StatusNoContent, "")
	return nil
}
