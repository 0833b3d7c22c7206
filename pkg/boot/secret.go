package boot

import (
	"fmt"
	"io"
	"os"
	"strings"
)

const redacted = "[redacted]"

// Secret is a string that shows itself to nobody but the caller of Reveal: fmt
// (with every verb), JSON and zap print "[redacted]", or nothing if it is empty.
type Secret string

// Reveal is the secret itself. Never log or return it.
func (s Secret) Reveal() string { return string(s) }

// String says whether there is a secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format redacts for every verb; String alone would leave %d and %#v open.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText redacts in JSON, YAML and zap. Only as a map key in JSON, where
// encoding/json asks no string type, it would show.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// SecretFrom is the convention for every key x with a companion x_file: the value
// itself, or the content of the file without its trailing line break. Both, an
// unreadable file and an empty file are errors; neither is "".
func SecretFrom(value Secret, file string) (Secret, error) {
	if file == "" {
		return value, nil
	}
	if value != "" {
		return "", fmt.Errorf("the value and the file %s are both set: keep one", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("read secret: %s is empty", file)
	}
	return Secret(secret), nil
}
