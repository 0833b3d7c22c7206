package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/openaperture/openaperture/pkg/component"
)

// config writes the configuration of one program.
func (s *Stack) config(name, text string) error {
	if err := os.WriteFile(s.path("config", name+".yaml"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	return nil
}

// configure writes secrets and configurations. Nothing secret stands in a configuration, only the files that hold it.
func (s *Stack) configure() error {
	admin, err := s.secret("admin_token")
	if err != nil {
		return err
	}
	service, err := s.secret("service_token")
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"database_url": s.Postgres.URL(database), "amqp_url": s.RabbitMQ.URL()} {
		if err := s.keep(name, value); err != nil {
			return err
		}
	}
	if err := errors.Join(s.sealKeys(), s.configureLinks()); err != nil {
		return err
	}
	if err := s.config(managerAPI, s.managerConfig(admin, service)); err != nil {
		return err
	}
	for _, v := range Own[1:] {
		if err := s.config(v.Name, s.memberConfig(v)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stack) managerConfig(admin, service string) string {
	return strings.Join([]string{
		s.times(),
		"home_exchange: " + ExchangeName,
		"source_repo: " + s.SourceRepo(Own[0]),
		"database_url_file: " + s.path("secrets", "database_url"),
		"amqp_url_file: " + s.path("secrets", "amqp_url"),
		"sealing_key_file: " + s.path("secrets", "seal_keys"),
		"tokens:",
		"  - {name: admin, role: admin, hash: " + tokenHash(admin) + "}",
		fmt.Sprintf("  - {name: local-services, role: service, exchange_id: %d, hash: %s}", firstExchange,
			tokenHash(service)),
		"",
	}, "\n")
}

func (s *Stack) memberConfig(v Service) string {
	lines := []string{
		s.times(),
		fmt.Sprintf("exchange_id: %d", firstExchange),
		"manager_url: " + s.URL(),
		"manager_token_file: " + s.path("secrets", "service_token"),
		"amqp_url_file: " + s.path("secrets", "amqp_url"),
		"source_repo: " + s.SourceRepo(v),
	}
	if v.Type == component.Deployer {
		lines = append(lines, "allow_local_repos: true", // the stack's repositories are directories
			"runtimes: {fleet: {token_file: "+s.path("secrets", "unitd_token")+"}}")
	}
	return strings.Join(append(lines, ""), "\n")
}

// times are the profile and what differs from it.
func (s *Stack) times() string {
	text := "profile: " + string(s.Profile)
	if s.Tuning != "" {
		text += "\ntimes: " + s.Tuning
	}
	return text
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(sum[:])
}
