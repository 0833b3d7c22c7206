package main

import (
	_ "embed"
	"errors"
	"fmt"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/services/manager-api/internal/api"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

//go:embed manager-api.sample.yaml
var sample []byte

// config is manager-api's configuration.
type config struct {
	boot.Base `mapstructure:",squash"`
	// DatabaseURL, or the content of DatabaseURLFile, is postgres://… with an explicit sslmode.
	DatabaseURL     boot.Secret `mapstructure:"database_url"`
	DatabaseURLFile string      `mapstructure:"database_url_file"`
	// DatabaseConnections bounds the pool for requests; leases have a small one of their own.
	DatabaseConnections int `mapstructure:"database_connections"`
	// AMQPURL, or the content of AMQPURLFile, is manager-api's own broker, which serves every exchange without a
	// restriction: one address, or those of a cluster's nodes, as a list or separated by commas.
	AMQPURL     boot.Secret `mapstructure:"amqp_url"`
	AMQPURLFile string      `mapstructure:"amqp_url_file"`
	// HomeExchange is the name of the exchange that manager-api beats into, once it is registered.
	HomeExchange string `mapstructure:"home_exchange"`
	// Tokens may call the API; only their hashes are configured.
	Tokens []api.Token `mapstructure:"tokens"`
	// SealingKeyFile holds the keys that seal broker passwords; without it none can be stored or read.
	SealingKeyFile string `mapstructure:"sealing_key_file"`
	// Profile names a set of times, default or fast; Times overrides single ones.
	Profile times.Profile   `mapstructure:"profile"`
	Times   times.Overrides `mapstructure:"times"`
	// SourceRepo is what manager-api heartbeats; its ref is the version stamped into the binary.
	SourceRepo           string `mapstructure:"source_repo"`
	DeploymentRepo       string `mapstructure:"deployment_repo"`
	DeploymentRepoGitRef string `mapstructure:"deployment_repo_git_ref"`
}

func defaultConfig() config {
	return config{Base: boot.DefaultBase("127.0.0.1:8080"), DatabaseConnections: 10, Profile: times.Default}
}

// Validate implements boot.Config.
func (c config) Validate() error {
	if c.DatabaseURL == "" && c.DatabaseURLFile == "" {
		return errors.New("database_url: set it or database_url_file")
	}
	if c.AMQPURL == "" && c.AMQPURLFile == "" {
		return errors.New("amqp_url: set it or amqp_url_file")
	}
	if c.HomeExchange == "" {
		return errors.New("home_exchange: want the name of the exchange that manager-api belongs to")
	}
	if err := api.CheckTokens(c.Tokens); err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	_, err := c.durations()
	return err
}

// CheckSecrets implements boot.Config, with all that is known of the database; its error names the key and quotes no
// secret.
func (c config) CheckSecrets() error {
	if err := c.postgres().Validate(); err != nil {
		return fmt.Errorf("database_%w", err)
	}
	if _, err := c.amqpURLs(); err != nil {
		return err
	}
	if _, err := c.keys(); err != nil {
		return fmt.Errorf("sealing_key_file: %w", err)
	}
	return nil
}

func (c config) postgres() postgres.Config {
	p := postgres.DefaultConfig("manager-api")
	p.URL, p.URLFile, p.MaxOpen = c.DatabaseURL, c.DatabaseURLFile, c.DatabaseConnections
	return p
}

func (c config) amqpURLs() ([]string, error) {
	secret, err := boot.SecretFrom(c.AMQPURL, c.AMQPURLFile)
	if err != nil {
		return nil, fmt.Errorf("amqp_url: %w", err)
	}
	urls, err := rabbit.ParseURLs(secret.Reveal())
	if err != nil {
		return nil, fmt.Errorf("amqp_url: %w", err)
	}
	return urls, nil
}

// keys is nil without a file: then no broker password can be stored or read.
func (c config) keys() (*seal.Ring, error) {
	if c.SealingKeyFile == "" {
		return nil, nil
	}
	return seal.Load(c.SealingKeyFile)
}

func (c config) durations() (times.Times, error) {
	t, err := times.Named(c.Profile)
	if err != nil {
		return t, fmt.Errorf("profile: %w", err)
	}
	t = t.Override(c.Times)
	return t, t.Validate()
}
