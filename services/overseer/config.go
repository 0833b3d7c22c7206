package main

import (
	_ "embed"
	"errors"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/times"
)

//go:embed sample.yaml
var sample []byte

// config is the overseer's configuration.
type config struct {
	boot.Base     `mapstructure:",squash"`
	member.Config `mapstructure:",squash"`
	// Prefetch is how many heartbeats are held here un-acknowledged; a request to manager-api takes up to 1000 of them.
	Prefetch int `mapstructure:"prefetch"`
}

func defaultConfig() config {
	return config{Base: boot.DefaultBase("127.0.0.1:8081"), Config: member.Config{Profile: times.Default}, Prefetch: 4000}
}

// Validate implements boot.Config.
func (c config) Validate() error {
	if c.Prefetch < 1 || c.Prefetch > 50_000 {
		return errors.New("prefetch: want 1 to 50000")
	}
	return c.Config.Validate()
}
