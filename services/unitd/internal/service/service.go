// Package service gives the options of a unit their meaning: the typed
// settings of one service, its restart policy, its environment.
//
// It is pure. A value that unitd could not honour is an error here, so that a
// PUT is refused and no start fails later. Keys that unitd does not know are
// reported in Ignored and have no effect.
package service

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
)

// Type is the value of `Type=`: when the service counts as started.
type Type string

// The supported types. `exec` and `idle` behave as `simple`.
const (
	Simple  Type = "simple"
	Notify  Type = "notify"
	Oneshot Type = "oneshot"
)

// KillMode is the value of `KillMode=`: which processes a stop ends.
type KillMode string

// The modes of systemd. Without control groups "control-group" means every
// descendant of the unit's shim, which adopts what daemonises.
const (
	KillControlGroup KillMode = "control-group"
	KillMixed        KillMode = "mixed"
	KillProcess      KillMode = "process"
	KillNone         KillMode = "none"
)

// DefaultPath is the PATH of services that set none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const (
	defaultTimeout      = 90 * time.Second
	defaultRestartPause = 100 * time.Millisecond
)

// EnvironmentFile is one `EnvironmentFile=`.
type EnvironmentFile struct {
	Path     string
	Optional bool // prefix `-`: may be missing
}

// Service is a unit as it will be run.
type Service struct {
	Specifiers        unit.Specifiers
	Hash              string
	Type              Type
	StartPre          []unit.Command
	Start             []unit.Command // one, unless Type is Oneshot
	Stop              []unit.Command
	Environment       []string // KEY=VALUE, specifiers expanded, in file order
	EnvironmentFiles  []EnvironmentFile
	WorkingDirectory  string
	DirectoryOptional bool
	User, Group       string
	Restart           Restart
	RestartPause      time.Duration
	TimeoutStart      time.Duration // Infinity: none
	TimeoutStop       time.Duration
	KillMode          KillMode
	RemainAfterExit   bool
	NotifyAll         bool     // NotifyAccess=all or exec: not only the main process may notify
	Ignored           []string `json:"-"` // keys of [Service] without effect, sorted
}

// reader collects the first error while settings are read one after another.
type reader struct {
	specifiers unit.Specifiers
	options    []unit.Option
	used       map[string]bool
	err        error
}

// Parse gives validated options their meaning. host is `%H`.
func Parse(name unit.Name, host string, options []unit.Option) (Service, error) {
	if err := unit.Validate(options); err != nil {
		return Service{}, err
	}
	r := &reader{specifiers: unit.Specifiers{Name: name, Host: host}, options: options, used: map[string]bool{}}
	s := Service{
		Specifiers:   r.specifiers,
		Hash:         unit.Hash(options),
		Type:         r.serviceType(),
		StartPre:     r.commands("ExecStartPre"),
		Start:        r.commands("ExecStart"),
		Stop:         r.commands("ExecStop"),
		User:         r.text("User"),
		Group:        r.text("Group"),
		RestartPause: r.span("RestartSec", defaultRestartPause),
		KillMode: KillMode(r.choice("KillMode",
			string(KillControlGroup), string(KillMixed), string(KillProcess), string(KillNone))),
		Restart: Restart(r.choice("Restart",
			string(RestartNo), string(RestartAlways), string(RestartOnSuccess), string(RestartOnFailure),
			string(RestartOnAbnormal), string(RestartOnAbort), string(RestartOnWatchdog))),
		RemainAfterExit: r.boolean("RemainAfterExit"),
		NotifyAll:       slices.Contains([]string{"all", "exec"}, r.choice("NotifyAccess", "main", "all", "exec", "none")),
	}
	s.WorkingDirectory, s.DirectoryOptional = r.directory()
	s.Environment = r.environment()
	s.EnvironmentFiles = r.environmentFiles()
	s.TimeoutStart, s.TimeoutStop = r.timeouts(s.Type)
	s.Ignored = r.ignored()
	if r.err != nil {
		return Service{}, r.err
	}
	return s, nil
}

func (r *reader) fail(key string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", key, err)
	}
}

func (r *reader) values(key string) []string {
	r.used[key] = true
	return unit.Values(r.options, unit.SectionService, key)
}

func (r *reader) expand(key, text string) string {
	expanded, err := r.specifiers.Expand(text)
	if err != nil {
		r.fail(key, err)
	}
	return expanded
}

func (r *reader) text(key string) string {
	values := r.values(key)
	if len(values) == 0 {
		return ""
	}
	return r.expand(key, values[len(values)-1])
}

// choice returns the last value, the first allowed one where there is none.
func (r *reader) choice(key string, allowed ...string) string {
	value := r.text(key)
	if value == "" {
		return allowed[0]
	}
	if !slices.Contains(allowed, value) {
		r.fail(key, fmt.Errorf("%q is none of %s", value, strings.Join(allowed, ", ")))
	}
	return value
}

func (r *reader) serviceType() Type {
	switch value := r.choice("Type", "simple", "notify", "oneshot", "exec", "idle"); value {
	case "exec", "idle":
		return Simple
	default:
		return Type(value)
	}
}

func (r *reader) boolean(key string) bool {
	switch value := strings.ToLower(r.text(key)); value {
	case "1", "yes", "true", "on", "y", "t":
		return true
	case "", "0", "no", "false", "off", "n", "f":
		return false
	default:
		r.fail(key, fmt.Errorf("%q is no boolean", value))
		return false
	}
}

func (r *reader) span(key string, fallback time.Duration) time.Duration {
	value := r.text(key)
	if value == "" {
		return fallback
	}
	span, err := ParseSpan(value)
	if err != nil {
		r.fail(key, err)
	}
	return span
}

// timeouts: 0 and infinity switch a timeout off; a oneshot has none for its start unless it sets one.
func (r *reader) timeouts(t Type) (start, stop time.Duration) {
	start, stop = defaultTimeout, defaultTimeout
	if t == Oneshot {
		start = Infinity
	}
	start = r.span("TimeoutSec", start)
	start = r.span("TimeoutStartSec", start)
	stop = r.span("TimeoutStopSec", r.span("TimeoutSec", stop))
	if start == 0 {
		start = Infinity
	}
	if stop == 0 {
		stop = Infinity
	}
	return start, stop
}

// commands keeps the words unexpanded but proves that their specifiers exist.
func (r *reader) commands(key string) []unit.Command {
	var commands []unit.Command
	for _, line := range r.values(key) {
		command, err := unit.ParseCommand(line)
		if err != nil {
			r.fail(key, err)
			continue
		}
		for _, word := range command.Words {
			r.expand(key, word)
		}
		commands = append(commands, command)
	}
	return commands
}

func (r *reader) directory() (string, bool) {
	dir, optional := strings.CutPrefix(r.text("WorkingDirectory"), "-")
	if dir != "" && dir != "~" && !path.IsAbs(dir) {
		r.fail("WorkingDirectory", fmt.Errorf("%q is no absolute path", dir))
	}
	return dir, optional
}

func (r *reader) environment() []string {
	var assignments []string
	for _, line := range r.values("Environment") {
		words, err := unit.SplitWords(line)
		if err != nil {
			r.fail("Environment", err)
		}
		for _, word := range words {
			if key, _, ok := strings.Cut(word, "="); !ok || key == "" {
				r.fail("Environment", fmt.Errorf("%q is no KEY=VALUE", word))
			}
			assignments = append(assignments, r.expand("Environment", word))
		}
	}
	return assignments
}

func (r *reader) environmentFiles() []EnvironmentFile {
	var files []EnvironmentFile
	for _, value := range r.values("EnvironmentFile") {
		file, optional := strings.CutPrefix(r.expand("EnvironmentFile", value), "-")
		if !path.IsAbs(file) {
			r.fail("EnvironmentFile", fmt.Errorf("%q is no absolute path", file))
		}
		files = append(files, EnvironmentFile{Path: file, Optional: optional})
	}
	return files
}

// ignored lists the keys of [Service] that no setting has read.
func (r *reader) ignored() []string {
	unknown := map[string]bool{}
	for _, o := range r.options {
		if o.Section == unit.SectionService && !r.used[o.Name] {
			unknown[o.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(unknown))
}
