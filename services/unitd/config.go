package main

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/openaperture/openaperture/pkg/boot"
)

//go:embed unitd.sample.yaml
var sample []byte

// Config is unitd's configuration.
type Config struct {
	boot.Base `mapstructure:",squash"`
	// Socket is the path of a Unix socket that serves the same API, "" for none.
	Socket string `mapstructure:"socket"`
	// StateDir holds units, logs and what is needed to find running units again.
	StateDir string `mapstructure:"state_dir"`
	// TokenFile holds the bearer token that callers must show, "" for none.
	TokenFile string `mapstructure:"token_file"`
	// MachineMetadata is shown with the machine and matched by MachineMetadata= of units.
	MachineMetadata map[string]string `mapstructure:"machine_metadata"`
}

// DefaultConfig serves on loopback, without token.
func DefaultConfig() Config {
	return Config{Base: boot.DefaultBase("127.0.0.1:8490"), StateDir: "/var/lib/openaperture/unitd"}
}

// Validate refuses a network address without a token: who may put a unit may run anything.
func (c Config) Validate() error {
	switch {
	case !filepath.IsAbs(c.StateDir):
		return fmt.Errorf("state_dir %q: want an absolute path", c.StateDir)
	case c.Socket != "" && !filepath.IsAbs(c.Socket):
		return fmt.Errorf("socket %q: want an absolute path", c.Socket)
	case c.TokenFile == "" && !loopback(c.Listen):
		return fmt.Errorf("listen %q: is open to a network, which needs token_file", c.Listen)
	}
	for key := range c.MachineMetadata {
		if key == "" {
			return errors.New("machine_metadata: a key is empty")
		}
	}
	return nil
}

func loopback(address string) bool {
	name, _, err := net.SplitHostPort(address)
	return err == nil && (name == "localhost" || net.ParseIP(name).IsLoopback())
}
