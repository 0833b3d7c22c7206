package unit

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxNameLength = 256
	nameCharacter = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.\\-@"
)

// unitTypes are the suffixes that systemd knows.
var unitTypes = map[string]bool{
	"service": true, "socket": true, "device": true, "mount": true, "automount": true, "swap": true,
	"target": true, "path": true, "timer": true, "snapshot": true, "slice": true, "scope": true,
}

// Name is a unit name taken apart: `manager@1.service` has Base `manager`,
// Instance `1` and Type `service`. Templated is set for every name with an
// `@`, also for the template `manager@.service` itself, which has no instance.
//
// Names are compared whole (docs/deployment.md#units-that-left): `manager@1` is not `fleet_manager@1`.
// Name is comparable, so == does that.
type Name struct {
	Base      string
	Instance  string
	Type      string
	Templated bool
}

// ParseName takes a unit name apart. The errors are Fleet's own sentences.
func ParseName(name string) (Name, error) {
	if name == "" {
		return Name{}, errors.New("unit name cannot be empty")
	}
	if len(name) > maxNameLength {
		return Name{}, fmt.Errorf("unit name exceeds maximum length (%d)", maxNameLength)
	}
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return Name{}, errors.New(`unit name must contain "."`)
	}
	for _, r := range name {
		if !strings.ContainsRune(nameCharacter, r) {
			return Name{}, fmt.Errorf("invalid character %q in unit name", r)
		}
	}
	suffix := name[dot+1:]
	if !unitTypes[suffix] {
		return Name{}, fmt.Errorf("invalid unit type: %q", suffix)
	}
	base, instance, templated := strings.Cut(name[:dot], "@")
	if base == "" {
		return Name{}, fmt.Errorf("unit name %q has nothing before its suffix", name)
	}
	return Name{Base: base, Instance: instance, Type: suffix, Templated: templated}, nil
}

// String puts the name together again.
func (n Name) String() string {
	return n.Prefix() + "." + n.Type
}

// Prefix is the name without its suffix: `manager@1`.
func (n Name) Prefix() string {
	if n.Templated {
		return n.Base + "@" + n.Instance
	}
	return n.Base
}

// IsTemplate tells whether the name is a template (`manager@.service`), which is stored but never run.
func (n Name) IsTemplate() bool {
	return n.Templated && n.Instance == ""
}

// WithInstance returns the name of an instance of the same template.
func (n Name) WithInstance(instance string) Name {
	n.Instance, n.Templated = instance, true
	return n
}

// Module is the part of a module's hostname that stands for this unit:
// the name without suffix, `@` as `-` (docs/messaging.md#heartbeats), e.g. `manager-1`.
func (n Name) Module() string {
	return strings.ReplaceAll(n.Prefix(), "@", "-")
}
