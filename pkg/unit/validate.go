package unit

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Validate tells why options are no definition of a service that may be sent
// to Fleet or to unitd; Fleet itself checks only the combinations of X-Fleet.
// The first fault in file order is reported.
func Validate(options []Option) error {
	for i, o := range options {
		if err := validateOption(o); err != nil {
			return fmt.Errorf("option %d: %w", i+1, err)
		}
	}
	if err := validateCommands(options); err != nil {
		return err
	}
	return validatePlacement(options)
}

// validateOption checks what would otherwise change the meaning of the rendered file.
func validateOption(o Option) error {
	switch {
	case strings.TrimSpace(o.Section) == "":
		return fmt.Errorf("%q has an empty section", o.Name)
	case strings.TrimSpace(o.Name) == "":
		return fmt.Errorf("an option of section %q has an empty name", o.Section)
	case hasControl(o.Section) || strings.ContainsAny(o.Section, "[]"):
		return fmt.Errorf("section %q contains a forbidden character", o.Section)
	case hasControl(o.Name) || strings.ContainsAny(o.Name, "= ") || strings.ContainsAny(o.Name[:1], "[#;"):
		return fmt.Errorf("name %q contains a forbidden character", o.Name)
	case strings.ContainsAny(o.Value, "\n\r\x00"):
		return fmt.Errorf("the value of %s contains a line break or NUL", o.Name)
	case strings.HasSuffix(strings.TrimRight(o.Value, " \t"), `\`):
		return fmt.Errorf("the value of %s ends in a backslash, which would swallow the next line", o.Name)
	case o.Section == SectionFleet && fleetKeys[o.Name] == "":
		return fmt.Errorf("unknown key %q in section %s", o.Name, SectionFleet)
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// validateCommands demands something to run, and command lines that can be split.
func validateCommands(options []Option) error {
	start := Values(options, SectionService, "ExecStart")
	if len(start) == 0 {
		return errors.New("service has no ExecStart")
	}
	if len(start) > 1 && Value(options, SectionService, "Type") != "oneshot" {
		return errors.New("service has more than one ExecStart, which only Type=oneshot may have")
	}
	for _, o := range options {
		if o.Section != SectionService || !strings.HasPrefix(o.Name, "Exec") || o.Value == "" {
			continue
		}
		if _, err := ParseCommand(o.Value); err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
	}
	return nil
}

// validatePlacement repeats Fleet's rules about X-Fleet options that exclude
// each other, in Fleet's words and order.
func validatePlacement(options []Option) error {
	options = fleetOptions(options) // as they are: Fleet expands no specifiers here
	peers := Values(options, SectionFleet, "MachineOf")
	conflicts := Values(options, SectionFleet, "Conflicts")
	for _, peer := range peers {
		for _, conflict := range conflicts {
			if ok, err := path.Match(conflict, peer); ok && err == nil {
				return fmt.Errorf("unresolvable requirements: peer %q matches conflict %q", peer, conflict)
			}
		}
	}
	target := Value(options, SectionFleet, "MachineID") != ""
	replaces := Value(options, SectionFleet, "Replaces") != ""
	global := IsGlobal(options)
	switch {
	case target && len(peers) > 0:
		return errors.New("MachineID cannot be used with Peers")
	case target && len(conflicts) > 0:
		return errors.New("MachineID cannot be used with Conflicts")
	case target && global:
		return errors.New("MachineID cannot be used with Global")
	case target && replaces:
		return errors.New("MachineID cannot be used with Replaces")
	case global && len(peers) > 0:
		return errors.New("Global cannot be used with Peers") //nolint:staticcheck // Fleet's sentence
	case global && replaces:
		return errors.New("Global cannot be used with Replaces") //nolint:staticcheck // Fleet's sentence
	case len(conflicts) > 0 && replaces:
		return errors.New("Conflicts cannot be used with Replaces") //nolint:staticcheck // Fleet's sentence
	}
	return nil
}
