// Package unit is the shared vocabulary of systemd unit files: ordered
// options, names, validation, hashes, fencing tokens and command lines.
//
// It is pure: nothing here reads a file, a clock or the environment. Fleet,
// unitd and the deployer compare definitions through Hash and Equal, so that
// "the same unit" means the same everywhere. The version is a part of a
// definition, the fencing token is none (docs/deployment.md#fencing).
package unit

import (
	"slices"
	"strconv"
	"strings"
)

// Names of the sections and options that OpenAperture itself gives a meaning.
const (
	SectionService      = "Service"
	SectionFleet        = "X-Fleet"
	SectionOpenAperture = "X-OpenAperture"

	optionToken = "Token"
)

// StartMark begins the line that unitd puts into a unit's log before all that
// one of its starts writes, ExecStartPre included. The unit's name follows.
const StartMark = "unitd: starting "

// Option is one `Name=Value` line of a unit file with the section it stands
// in. The JSON form is the one of the Fleet API.
type Option struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Value   string `json:"value"`
}

// Values returns the values of a list option in file order. As in systemd an
// empty value resets what stands before it.
func Values(options []Option, section, name string) []string {
	var values []string
	for _, o := range options {
		if o.Section != section || o.Name != name {
			continue
		}
		if o.Value == "" {
			values = nil
			continue
		}
		values = append(values, o.Value)
	}
	return values
}

// Value returns the last value of a single-valued option, "" where it is absent.
func Value(options []Option, section, name string) string {
	values := Values(options, section, name)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// IsGlobal tells whether `[X-Fleet] Global` is set, in one of Fleet's words for
// it: one instance on every host.
func IsGlobal(options []Option) bool {
	global := strings.ToLower(Value(options, SectionFleet, "Global"))
	return slices.Contains([]string{"true", "yes", "1", "on", "t"}, global)
}

// WithToken returns a copy of options that carries the fencing token as its
// last option, in place of any that was there.
func WithToken(options []Option, token int64) []Option {
	return append(WithoutToken(options), Option{SectionOpenAperture, optionToken, strconv.FormatInt(token, 10)})
}

// Token returns the fencing token of a definition, 0 where there is none or
// where it is no decimal number.
func Token(options []Option) int64 {
	token, err := strconv.ParseInt(Value(options, SectionOpenAperture, optionToken), 10, 64)
	if err != nil {
		return 0
	}
	return token
}

// WithoutToken returns a copy of options without the fencing token.
func WithoutToken(options []Option) []Option {
	return slices.DeleteFunc(slices.Clone(options), func(o Option) bool {
		return o.Section == SectionOpenAperture && o.Name == optionToken
	})
}
