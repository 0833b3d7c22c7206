// Package member makes a service a member of its MessagingExchange: its configuration, the exchange's place on the
// broker, the broker connection, and the heartbeats by which others know it.
//
// Invariants: a service that has not joined stays up and is not ready; the broker connection outlives every part that
// uses it, so that the last words of a stopping service are heard; a heartbeat says active only while the service is
// ready.
package member

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/times"
)

// Config is the part of a service's configuration that makes it a member; services squash it into their own.
type Config struct {
	// ManagerURL is the base of manager-api's REST API, such as http://127.0.0.1:8080.
	ManagerURL string `mapstructure:"manager_url"`
	// ManagerToken, or the content of ManagerTokenFile, is the bearer token of role service, bound to the exchange.
	ManagerToken     boot.Secret `mapstructure:"manager_token"`
	ManagerTokenFile string      `mapstructure:"manager_token_file"`
	// AMQPURL, or the content of AMQPURLFile, is the exchange's own broker: one address, or those of a cluster's nodes, as
	// a list or separated by commas (see rabbit.ParseURLs). The failover broker is not configured: manager-api knows it.
	AMQPURL     boot.Secret `mapstructure:"amqp_url"`
	AMQPURLFile string      `mapstructure:"amqp_url_file"`
	// ExchangeID is the MessagingExchange that the service belongs to.
	ExchangeID int `mapstructure:"exchange_id"`
	// Profile names a set of times, default or fast; Times overrides single ones.
	Profile times.Profile   `mapstructure:"profile"`
	Times   times.Overrides `mapstructure:"times"`
	// StateDir is where an executor keeps its work file; other services do not use it.
	StateDir string `mapstructure:"state_dir"`
	// SourceRepo is what the service heartbeats as its source repository; its ref is the version stamped into the binary.
	SourceRepo string `mapstructure:"source_repo"`
	// DeploymentRepo and its ref are heartbeated too where they are set.
	DeploymentRepo       string `mapstructure:"deployment_repo"`
	DeploymentRepoGitRef string `mapstructure:"deployment_repo_git_ref"`
}

// Validate checks values and their relations.
func (c Config) Validate() error {
	u, err := url.Parse(c.ManagerURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return errors.New("manager_url: want http://host:port or https://host")
	}
	if c.ManagerToken == "" && c.ManagerTokenFile == "" {
		return errors.New("manager_token: set it or manager_token_file")
	}
	if c.AMQPURL == "" && c.AMQPURLFile == "" {
		return errors.New("amqp_url: set it or amqp_url_file")
	}
	if c.ExchangeID < 1 {
		return errors.New("exchange_id: want the id of a messaging exchange")
	}
	_, err = c.Durations()
	return err
}

// CheckSecrets implements boot.Config; its error names the key and never quotes a secret.
func (c Config) CheckSecrets() error {
	_, _, err := c.secrets()
	return err
}

// Durations are the times of the profile with the single overrides.
func (c Config) Durations() (times.Times, error) {
	t, err := times.Named(c.Profile)
	if err != nil {
		return t, fmt.Errorf("profile: %w", err)
	}
	t = t.Override(c.Times)
	return t, t.Validate()
}

// Exchange is the configured exchange.
func (c Config) Exchange() component.ExchangeID { return component.ExchangeID(c.ExchangeID) }

// secrets reads what may stand in files: the token, and the addresses of the broker.
func (c Config) secrets() (token string, amqpURLs []string, err error) {
	t, err := boot.SecretFrom(c.ManagerToken, c.ManagerTokenFile)
	if err != nil {
		return "", nil, fmt.Errorf("manager_token: %w", err)
	}
	u, err := boot.SecretFrom(c.AMQPURL, c.AMQPURLFile)
	if err != nil {
		return "", nil, fmt.Errorf("amqp_url: %w", err)
	}
	if amqpURLs, err = rabbit.ParseURLs(u.Reveal()); err != nil {
		return "", nil, fmt.Errorf("amqp_url: %w", err)
	}
	return t.Reveal(), amqpURLs, nil
}
