package service

import (
	"fmt"
	"strings"

	"github.com/openaperture/openaperture/pkg/unit"
)

// ParseEnvironment reads the text of an EnvironmentFile: one KEY=VALUE per
// line, `#` and `;` comments, quotes and continued lines as in systemd.
// Errors name the line, never its value: such files hold secrets.
func ParseEnvironment(text string) ([]string, error) {
	var assignments []string
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\\\n", "")
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t") {
			return nil, fmt.Errorf("line %d is no KEY=VALUE", i+1)
		}
		value, err := unquote(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		assignments = append(assignments, key+"="+value)
	}
	return assignments, nil
}

// unquote removes quotes where a value begins with one; otherwise white space within it is kept.
func unquote(value string) (string, error) {
	if value == "" || !strings.ContainsRune(`"'`, rune(value[0])) {
		return value, nil
	}
	words, err := unit.SplitWords(value)
	if err != nil {
		return "", err
	}
	return strings.Join(words, " "), nil
}

// Merge lays assignments one over the other, the later one winning, and
// returns them as a map for expansion.
func Merge(layers ...[]string) map[string]string {
	env := map[string]string{}
	for _, layer := range layers {
		for _, assignment := range layer {
			key, value, _ := strings.Cut(assignment, "=")
			env[key] = value
		}
	}
	return env
}
