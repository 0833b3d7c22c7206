package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/openaperture/openaperture/pkg/component"
)

// maxToken bounds what is hashed of a header.
const maxToken = 8 << 10

// Token is one static token of the configuration: only its hash is known, "sha256:<hex>". Service and module tokens
// must name their exchange, operators and viewers may, and admins may not: they change what all exchanges share.
type Token struct {
	Name       string               `mapstructure:"name"`
	Role       Role                 `mapstructure:"role"`
	ExchangeID component.ExchangeID `mapstructure:"exchange_id"`
	Hash       string               `mapstructure:"hash"`
}

type credential struct {
	caller Caller
	sum    [sha256.Size]byte
}

// credentials checks the configured tokens. An error names the token, never its hash.
func credentials(tokens []Token) ([]credential, error) {
	out := make([]credential, 0, len(tokens))
	for i, t := range tokens {
		if t.Name == "" {
			return nil, fmt.Errorf("token %d has no name", i)
		}
		if !slices.Contains(RoleList, t.Role) {
			return nil, fmt.Errorf("token %q: unknown role %q", t.Name, t.Role)
		}
		if t.ExchangeID < 0 || (t.ExchangeID == 0 && (t.Role == RoleService || t.Role == RoleModule)) {
			return nil, fmt.Errorf("token %q: role %s needs an exchange_id", t.Name, t.Role)
		}
		if t.ExchangeID != 0 && t.Role == RoleAdmin {
			return nil, fmt.Errorf("token %q: role admin is for all exchanges: leave its exchange_id out, or "+
				"make it an operator",
				t.Name)
		}
		sum, err := parseHash(t.Hash)
		if err != nil {
			return nil, fmt.Errorf("token %q: %w", t.Name, err)
		}
		out = append(out, credential{Caller{t.Name, t.Role, t.ExchangeID}, sum})
	}
	return out, nil
}

var errHash = errors.New(`hash must be "sha256:" and 64 hex digits`)

func parseHash(s string) (sum [sha256.Size]byte, err error) {
	text, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return sum, errHash
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(sum) {
		return sum, errHash
	}
	copy(sum[:], raw)
	return sum, nil
}

// authenticate finds the caller of a request. Every credential is compared, so that the time says nothing about which.
func (s *Server) authenticate(r *http.Request) (Caller, bool) {
	token := bearer(r.Header.Values("Authorization"))
	if token == "" || len(token) > maxToken {
		return Caller{}, false
	}
	sum := sha256.Sum256([]byte(token))
	found := -1
	for i := range s.credentials {
		if subtle.ConstantTimeCompare(sum[:], s.credentials[i].sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Caller{}, false
	}
	return s.credentials[found].caller, true
}

// bearer reads the token of the one Authorization header in each form of the predecessor: "Bearer t",
// "Bearer access_token=t", "OAuth Bearer t" and a bare "t". It is what follows the last "Bearer", "" without one.
func bearer(headers []string) string {
	if len(headers) != 1 {
		return ""
	}
	text := strings.TrimSpace(headers[0])
	if i := strings.LastIndex(strings.ToLower(text), "bearer"); i >= 0 {
		text = strings.TrimSpace(text[i+len("bearer"):])
	}
	return strings.TrimSpace(strings.TrimPrefix(text, "access_token="))
}
