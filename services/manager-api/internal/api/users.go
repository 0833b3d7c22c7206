package api

import (
	"net/http"
	"regexp"
	"strconv"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

const userItem = "User"

func (s *Server) registerUsers() {
	s.family("GET /users", userItem, Readers, s.listUsers)
	s.once("POST /users", userItem, Admins, s.createUser)
	s.family("GET /users/me", userItem, Members, s.showMe)
	s.family("GET /users/{id}", userItem, Readers, s.showUser)
}

func (s *Server) listUsers(w http.ResponseWriter, r *http.Request) error {
	p, err := partOf(r, userItem)
	if err != nil {
		return err
	}
	return stream(w, func(emit func(registry.UserRow) error) error { return s.Registry.EachUser(r.Context(), p, emit) })
}

// me is the caller as a user: a static token has a name and no row.
type me struct {
	ID         *int64 `json:"id"`
	FirstName  string `json:"first_name"`
	LastName   string `json:"last_name"`
	Email      string `json:"email"`
	Role       Role   `json:"role"`
	ExchangeID *int64 `json:"messaging_exchange_id"`
	InsertedAt *int64 `json:"inserted_at"`
	UpdatedAt  *int64 `json:"updated_at"`
}

func (s *Server) showMe(w http.ResponseWriter, r *http.Request) error {
	caller := callerOf(r.Context())
	shown := me{FirstName: caller.Name, Role: caller.Role}
	if id := int64(caller.ExchangeID); id != 0 {
		shown.ExchangeID = &id
	}
	writeJSON(w, http.StatusOK, shown)
	return nil
}

func (s *Server) showUser(w http.ResponseWriter, r *http.Request) error {
	id, ok := pathID(r, "id")
	if !ok {
		return noUser()
	}
	row, err := s.Registry.User(r.Context(), id)
	if fault.Is(err, fault.NotFound) {
		return noUser()
	}
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, row)
	return nil
}

func noUser() error { return &answer{status: http.StatusNotFound, body: "No user with such ID found"} }

var emailForm = regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[^@\s.]{2,63}$`)

func (s *Server) createUser(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	spec := registry.UserSpec{FirstName: f.need("first_name"), LastName: f.need("last_name"), Email: f.need("email")}
	if spec.Email != "" && !emailForm.MatchString(spec.Email) {
		f.before("email", "has invalid format")
	}
	if err := f.err(userItem); err != nil {
		return err
	}
	id, err := s.Registry.CreateUser(r.Context(), spec)
	if err != nil {
		return namedDuplicate(err, userItem)
	}
	w.Header().Set("Location", "/users/"+strconv.FormatInt(id, 10))
	writeJSON(w, http.StatusCreated, "Created user "+strconv.FormatInt(id, 10))
	return nil
}
