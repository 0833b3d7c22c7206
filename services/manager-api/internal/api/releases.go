package api

import (
	"net/http"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

func (s *Server) registerReleases() {
	s.route("GET /system_components/{id}/releases", Readers, s.listReleases)
	s.posted("POST /system_components/{id}/releases", Operators, s.adoptRelease)
}

func (s *Server) listReleases(w http.ResponseWriter, r *http.Request) error {
	id, err := pathComponent(r)
	if err != nil {
		return err
	}
	if _, err := s.component(r, int64(id)); err != nil {
		return err
	}
	cursor, limit, err := pageOf(r)
	if err != nil {
		return err
	}
	list, err := s.Engine.Releases(r.Context(), id, cursor, limit)
	if err != nil {
		return err
	}
	return paged(w, list, limit, func(r managerapi.Release) string { return r.ID })
}

func (s *Server) adoptRelease(w http.ResponseWriter, r *http.Request) error {
	id, err := pathComponent(r)
	if err != nil {
		return err
	}
	if _, err := s.component(r, int64(id)); err != nil {
		return err
	}
	var in managerapi.Release
	if err := readStrict(r, &in); err != nil {
		return err
	}
	in.ComponentID = id
	if err := checkRelease(in); err != nil {
		return err
	}
	out, err := s.Engine.Adopt(r.Context(), in)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, out)
	return nil
}

func checkRelease(r managerapi.Release) error {
	var wrong []fault.Field
	for _, f := range []struct{ name, value string }{{"source_repo", r.SourceRepo},
		{"source_repo_git_ref", r.SourceRepoGitRef}, {"etcd_token", r.EtcdToken}} {
		if component.Blank(f.value) {
			wrong = append(wrong, fault.Field{Name: f.name, Message: "is required"})
		}
	}
	if len(r.Units) == 0 {
		wrong = append(wrong, fault.Field{Name: "units", Message: "is required"})
	}
	if len(wrong) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "the release is not complete").WithFields(wrong...)
}
