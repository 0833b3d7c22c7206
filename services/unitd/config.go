package main

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

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
	// Backend runs the units: direct (a shim beside each) or systemd (over D-Bus).
	Backend string `mapstructure:"backend"`
	// SystemdUnitDir is where unit files for systemd are written.
	SystemdUnitDir string `mapstructure:"systemd_unit_dir"`
	// TokenFile holds the bearer token that callers must show, "" for none.
	TokenFile string `mapstructure:"token_file"`
	// MachineMetadata is shown with the machine and matched by MachineMetadata= of units.
	MachineMetadata map[string]string `mapstructure:"machine_metadata"`
}

// The values of Config.Backend.
const (
	backendDirect  = "direct"
	backendSystemd = "systemd"
)

// unitDirs are the directories in which systemd looks for unit files of a host. The files of the
// first are gone after the next boot, those of the second stay.
var unitDirs = []string{"/run/systemd/system", "/etc/systemd/system"}

// DefaultConfig serves on loopback, without token.
func DefaultConfig() Config {
	return Config{Base: boot.DefaultBase("127.0.0.1:8490"), StateDir: "/var/lib/openaperture/unitd",
		Backend: backendDirect, SystemdUnitDir: unitDirs[0]}
}

// Validate refuses a network address without a token: whoever may put a unit may run anything.
func (c Config) Validate() error {
	switch {
	case !filepath.IsAbs(c.StateDir):
		return fmt.Errorf("state_dir %q: want an absolute path", c.StateDir)
	case c.Socket != "" && !filepath.IsAbs(c.Socket):
		return fmt.Errorf("socket %q: want an absolute path", c.Socket)
	case c.Backend != backendDirect && c.Backend != backendSystemd:
		return fmt.Errorf("backend %q: want direct or systemd", c.Backend)
	case !slices.Contains(unitDirs, c.SystemdUnitDir):
		return fmt.Errorf("systemd_unit_dir %q: want %s", c.SystemdUnitDir, strings.Join(unitDirs, " or "))
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

// CheckSecrets refuses a token that cannot be read.
func (c Config) CheckSecrets() error {
	_, err := c.token()
	return err
}

// token is "" where callers need none.
func (c Config) token() (boot.Secret, error) {
	token, err := boot.SecretFrom("", c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	return token, nil
}

func loopback(address string) bool {
	name, _, err := net.SplitHostPort(address)
	return err == nil && (name == "localhost" || net.ParseIP(name).IsLoopback())
}
