package stack

import "context"

// DatabaseURL is where the stack's database is. It contains its password.
func (s *Stack) DatabaseURL() string { return s.Postgres.URL(database) }

// UnitStates are the active states of unitd's units by name.
func (s *Stack) UnitStates(ctx context.Context) (map[string]string, error) { return s.states(ctx) }

// UnitdPID is unitd's process, if it runs.
func (s *Stack) UnitdPID() (int, bool) { return s.pidOf("unitd") }

// RestartUnitd starts unitd again after it was killed, as a host's init would.
func (s *Stack) RestartUnitd(ctx context.Context) error { return s.startUnitd(ctx) }

// ConfigFile is the configuration of a service.
func (s *Stack) ConfigFile(v Service) string { return s.path("config", v.Name+".yaml") }

// Binary is the executable of a service in a release.
func (s *Stack) Binary(ref string, v Service) string { return s.path("releases", ref, v.Name) }

// UnitdTokenFile holds the token that unitd asks for.
func (s *Stack) UnitdTokenFile() string { return s.path("secrets", "unitd_token") }
