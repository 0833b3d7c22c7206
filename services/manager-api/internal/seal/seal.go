// Package seal encrypts secrets at rest with AES-256-GCM. The associated data is the place of the secret — table, row,
// column — and the key's id, so that a ciphertext that is moved to another row or claims another key does not open.
//
// The key file has one key per line, "<id> <base64 of 32 bytes>"; the first one seals, all of them open, so that two
// keys are active while secrets are sealed anew. Empty lines and lines that begin with # are skipped.
package seal

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Place is where a sealed secret is stored.
type Place struct {
	Table  string
	Row    int64
	Column string
}

// Ring holds the keys. It is safe for concurrent use. A nil Ring has no key: it neither seals nor opens.
type Ring struct {
	active string
	keys   map[string]cipher.AEAD
}

// The failures: no key is configured, the key that sealed is not in the ring, or the secret does not open.
var (
	ErrNoKey      = errors.New("no seal key is configured")
	ErrUnknownKey = errors.New("the secret is sealed with a key that is not in the key file")
	ErrForged     = errors.New("the sealed secret does not belong to its place or was changed")
)

var idForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Load reads a key file. Errors name the line, never a key.
func Load(path string) (*Ring, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read seal keys: %w", err)
	}
	ring, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("read seal keys of %s: %w", path, err)
	}
	return ring, nil
}

// Parse reads the text of a key file.
func Parse(text []byte) (*Ring, error) {
	ring := &Ring{keys: map[string]cipher.AEAD{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := ring.add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read lines: %w", err)
	}
	if ring.active == "" {
		return nil, ErrNoKey
	}
	return ring, nil
}

func (r *Ring) add(line string) error {
	words := strings.Fields(line)
	if len(words) != 2 || !idForm.MatchString(words[0]) {
		return errors.New(`a key is "<id> <base64 of 32 bytes>"`)
	}
	key, err := base64.StdEncoding.DecodeString(words[1])
	if err != nil || len(key) != 32 {
		return fmt.Errorf("key %s is not the base64 of 32 bytes", words[0])
	}
	if _, twice := r.keys[words[0]]; twice {
		return fmt.Errorf("key %s stands twice", words[0])
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("use key %s: %w", words[0], err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return fmt.Errorf("use key %s: %w", words[0], err)
	}
	r.keys[words[0]] = aead
	if r.active == "" {
		r.active = words[0]
	}
	return nil
}

// Active is the id of the key that seals.
func (r *Ring) Active() string {
	if r == nil {
		return ""
	}
	return r.active
}

// Seal encrypts a secret for its place under the active key, whose id it returns.
func (r *Ring) Seal(at Place, secret string) (sealed []byte, keyID string, err error) {
	if r == nil {
		return nil, "", ErrNoKey
	}
	aead := r.keys[r.active]
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, "", fmt.Errorf("draw nonce: %w", err)
	}
	return aead.Seal(nonce, nonce, []byte(secret), associated(at, r.active)), r.active, nil
}

// Open decrypts what Seal made for the same place.
func (r *Ring) Open(at Place, keyID string, sealed []byte) (string, error) {
	if r == nil {
		return "", ErrNoKey
	}
	aead, ok := r.keys[keyID]
	if !ok {
		return "", ErrUnknownKey
	}
	if len(sealed) < aead.NonceSize() {
		return "", ErrForged
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], associated(at, keyID))
	if err != nil {
		return "", ErrForged
	}
	return string(plain), nil
}

// associated quotes each part, so that no two places share one encoding.
func associated(at Place, keyID string) []byte {
	return fmt.Appendf(nil, "%q/%d/%q/%q", at.Table, at.Row, at.Column, keyID)
}
