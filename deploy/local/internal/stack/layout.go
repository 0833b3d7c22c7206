// Package stack runs OpenAperture on one machine as its users run it on many: PostgreSQL and RabbitMQ beside it, unitd
// as the cluster's runtime, every service a unit of unitd, rendered from a deployment repository and recorded as the
// release that runs. From there on the stack upgrades itself; nothing here is involved any more.
//
// Everything lies under one directory, .run in the workspace, but for PostgreSQL's data where its user could not get
// there. Up is idempotent: it starts what does not run. Down leaves nothing.
package stack

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/openaperture/openaperture/deploy/local/internal/servers"
	"github.com/openaperture/openaperture/pkg/times"
)

// Names of what Up registers.
const (
	ExchangeName = "local" // also its routing key fragment
	clusterToken = "local-unitd"
	database     = "openaperture"
	// Deployed is the ref of every deployment repository.
	Deployed = "main"
)

// Stack is one running stack, or one to be. Its exported fields are what has to be known to find it again.
type Stack struct {
	Root string `json:"-"` // the workspace
	Dir  string `json:"-"` // .run

	Profile  times.Profile    `json:"profile"`
	Tuning   string           `json:"tuning,omitempty"` // YAML of times that differ from the profile's
	Postgres servers.Postgres `json:"postgres"`
	RabbitMQ servers.RabbitMQ `json:"rabbitmq"`
	Unitd    int              `json:"unitd"`              // its port
	UnitdOn  string           `json:"unitd_on,omitempty"` // the address that it listens on; loopback if empty
	ReposAt  string           `json:"repos_at,omitempty"` // where the executors see the repositories, if elsewhere
	Listen   map[string]int   `json:"listen"`             // per service the first port; instance i listens on this plus i

	Separated Separated `json:"separated,omitzero"` // links between the services and their servers
	Exchange  int       `json:"exchange"`
}

func (s *Stack) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// Releases is the directory of the releases: <ref>/<binary>.
func (s *Stack) Releases() string { return s.path("releases") }

// URL is where manager-api answers.
func (s *Stack) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.Listen[managerAPI]+1) }

// UnitdURL is where unitd answers.
func (s *Stack) UnitdURL() string { return "http://" + s.unitdAddress() }

func (s *Stack) unitdAddress() string {
	return net.JoinHostPort(cmp.Or(s.UnitdOn, "127.0.0.1"), strconv.Itoa(s.Unitd))
}

// EnvFile holds what a shell needs to use the stack. It contains secrets.
func (s *Stack) EnvFile() string { return s.path("env") }

// TokenFile holds the administrator's token.
func (s *Stack) TokenFile() string { return s.path("secrets", "admin_token") }

// Open finds the stack of a directory, or describes a new one there with the given profile. Nothing is started.
func Open(ctx context.Context, root, dir string, profile times.Profile) (*Stack, error) {
	s := &Stack{Root: root, Dir: dir}
	found, err := s.load()
	if err != nil {
		return nil, err
	}
	if !found {
		if err := s.describe(ctx, profile); err != nil {
			return nil, err
		}
	}
	if s.Postgres.Password, err = s.secret("postgres_password"); err != nil {
		return nil, err
	}
	s.RabbitMQ.Password, err = s.secret("rabbitmq_password")
	return s, err
}

func (s *Stack) load() (bool, error) {
	text, err := os.ReadFile(s.path("stack.json"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the stack: %w", err)
	}
	if err := json.Unmarshal(text, s); err != nil {
		return false, fmt.Errorf("read the stack: %w", err)
	}
	return true, nil
}

func (s *Stack) save() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save the stack: %w", err)
	}
	if err := os.WriteFile(s.path("stack.json"), text, 0o600); err != nil {
		return fmt.Errorf("save the stack: %w", err)
	}
	return nil
}

// describe chooses ports and directories and writes them down, so that an interrupted Up is found by Down.
func (s *Stack) describe(ctx context.Context, profile times.Profile) error {
	for _, dir := range []string{"", "secrets", "config", "releases", "repos", "state", "log", "bin"} {
		// PostgreSQL's user passes through. Secrets are 0600 in 0700.
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil { //nolint:gosec // the line above
			return fmt.Errorf("make the stack's directories: %w", err)
		}
	}
	if err := os.Chmod(s.path("secrets"), 0o700); err != nil {
		return fmt.Errorf("close the directory of secrets: %w", err)
	}
	s.Profile = profile
	s.RabbitMQ = servers.RabbitMQ{Dir: s.path("rabbitmq"), User: "openaperture"}
	if err := s.choosePorts(ctx); err != nil {
		return err
	}
	var err error
	if s.Postgres.Dir, err = servers.PostgresDir(s.Dir); err != nil {
		return err
	}
	return s.save()
}

// choosePorts asks once for all ports. Nothing listens on them yet, so that a second question might be answered with
// one of the first; the servers have a block of their own.
func (s *Stack) choosePorts(ctx context.Context) error {
	blocks, err := servers.FreeBlocks(ctx, 1+len(listening), 10)
	if err != nil {
		return err
	}
	first := blocks[0]
	s.Unitd, s.Postgres.Port = first, first+1
	s.RabbitMQ.Port, s.RabbitMQ.Dist, s.RabbitMQ.Epmd = first+2, first+3, first+4
	s.Listen = map[string]int{}
	for i, service := range listening {
		s.Listen[service] = blocks[1+i]
	}
	return nil
}

// secret reads a secret of the stack, or makes a random one.
func (s *Stack) secret(name string) (string, error) {
	path := s.path("secrets", name)
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read secret %s: %w", name, err)
	}
	value := rand.Text()
	return value, s.keep(name, value)
}

// sealKeys is the key file by which manager-api seals the passwords that it keeps: "<id> <base64 of 32 bytes>".
func (s *Stack) sealKeys() error {
	if _, err := os.Stat(s.path("secrets", "seal_keys")); err == nil {
		return nil
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return s.keep("seal_keys", "local "+base64.StdEncoding.EncodeToString(key))
}

// keep writes a secret that others read from its file.
func (s *Stack) keep(name, value string) error {
	if err := os.WriteFile(s.path("secrets", name), []byte(value+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep secret %s: %w", name, err)
	}
	return nil
}
