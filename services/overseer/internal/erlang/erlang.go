// Package erlang reads the Erlang external term format, in which modules of the predecessor publish their heartbeats
// and upgrade requests (docs/messaging.md#the-predecessors-format), and turns it into the JSON that they stand for:
// atoms and binaries become strings, nil and undefined null, true and false booleans, tuples lists.
//
// It is small and bounded: plain data only (no processes, functions or references, nothing compressed), limited in
// size, depth and number of terms; nothing is allocated for more elements than there are bytes left.
package erlang

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"unicode/utf8"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// Version is the first byte of every external term; JSON never begins with it.
const Version = 131

const (
	maxDepth = 32
	maxTerms = 50_000
	maxBig   = 64 // bytes of one integer
)

// The tags that are read.
const (
	tagNewFloat      = 70
	tagSmallInteger  = 97
	tagInteger       = 98
	tagAtom          = 100
	tagSmallTuple    = 104
	tagLargeTuple    = 105
	tagNil           = 106
	tagString        = 107
	tagList          = 108
	tagBinary        = 109
	tagSmallBig      = 110
	tagLargeBig      = 111
	tagSmallAtom     = 115
	tagMap           = 116
	tagAtomUTF8      = 118
	tagSmallAtomUTF8 = 119
)

// JSON returns the JSON that a body stands for: the body itself, unless it is an external term. Its errors are
// messages.ErrInvalid: no retry can mend them.
func JSON(body []byte) ([]byte, error) {
	if len(body) == 0 || body[0] != Version {
		return body, nil
	}
	if len(body) > messages.MaxBody {
		return nil, fmt.Errorf("%w: term of %d bytes exceeds %d", messages.ErrInvalid, len(body), messages.MaxBody)
	}
	r := reader{rest: body[1:]}
	v, err := r.term(0)
	if err == nil && len(r.rest) > 0 {
		err = errors.New("bytes after the term")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: external term: %w", messages.ErrInvalid, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: external term: %w", messages.ErrInvalid, err)
	}
	return out, nil
}

type reader struct {
	rest  []byte
	terms int
}

var errShort = errors.New("ends in the middle of a term")

func (r *reader) take(n int) ([]byte, error) {
	if n < 0 || n > len(r.rest) {
		return nil, errShort
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b, nil
}

// size reads a length of so many bytes; every element takes at least one byte, so more than what is left is a lie.
func (r *reader) size(bytes int) (int, error) {
	b, err := r.take(bytes)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	if n > uint64(len(r.rest)) {
		return 0, errShort
	}
	return int(n), nil
}

func (r *reader) term(depth int) (any, error) {
	if r.terms++; r.terms > maxTerms {
		return nil, fmt.Errorf("more than %d terms", maxTerms)
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("deeper than %d", maxDepth)
	}
	tag, err := r.take(1)
	if err != nil {
		return nil, err
	}
	switch tag[0] {
	case tagAtom, tagAtomUTF8:
		return r.atom(2, tag[0] == tagAtom)
	case tagSmallAtom, tagSmallAtomUTF8:
		return r.atom(1, tag[0] == tagSmallAtom)
	case tagBinary:
		return r.text()
	case tagMap:
		return r.object(depth)
	case tagNil:
		return []any{}, nil
	case tagList:
		return r.list(depth)
	case tagSmallTuple:
		return r.elements(depth, 1)
	case tagLargeTuple:
		return r.elements(depth, 4)
	case tagString:
		return r.smallIntegers()
	default:
		return r.number(tag[0])
	}
}

func (r *reader) number(tag byte) (any, error) {
	switch tag {
	case tagSmallInteger:
		b, err := r.take(1)
		if err != nil {
			return nil, err
		}
		return int64(b[0]), nil
	case tagInteger:
		b, err := r.take(4)
		if err != nil {
			return nil, err
		}
		return int64(int32(binary.BigEndian.Uint32(b))), nil
	case tagNewFloat:
		b, err := r.take(8)
		if err != nil {
			return nil, err
		}
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	case tagSmallBig:
		return r.integer(1)
	case tagLargeBig:
		return r.integer(4)
	default:
		return nil, fmt.Errorf("tag %d is no plain data", tag)
	}
}

// integer reads a sign and the magnitude, lowest byte first.
func (r *reader) integer(lengthBytes int) (any, error) {
	n, err := r.size(lengthBytes)
	if err != nil {
		return nil, err
	}
	if n > maxBig {
		return nil, fmt.Errorf("an integer of %d bytes", n)
	}
	b, err := r.take(n + 1)
	if err != nil {
		return nil, err
	}
	magnitude := make([]byte, n)
	for i, c := range b[1:] {
		magnitude[n-1-i] = c
	}
	v := new(big.Int).SetBytes(magnitude)
	if b[0] != 0 {
		v.Neg(v)
	}
	return v, nil
}

// atom reads a name. It stays text: nothing is registered anywhere, however many different ones come.
func (r *reader) atom(lengthBytes int, latin1 bool) (any, error) {
	n, err := r.size(lengthBytes)
	if err != nil {
		return nil, err
	}
	b, err := r.take(n)
	if err != nil {
		return nil, err
	}
	switch name := string(b); {
	case name == "nil" || name == "undefined" || name == "null":
		return nil, nil
	case name == "true" || name == "false":
		return name == "true", nil
	case latin1:
		runes := make([]rune, n)
		for i, c := range b {
			runes[i] = rune(c)
		}
		return string(runes), nil
	default:
		return valid(name)
	}
}

func (r *reader) text() (any, error) {
	n, err := r.size(4)
	if err != nil {
		return nil, err
	}
	b, err := r.take(n)
	if err != nil {
		return nil, err
	}
	return valid(string(b))
}

func valid(s string) (any, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("text is not UTF-8")
	}
	return s, nil
}

func (r *reader) object(depth int) (any, error) {
	n, err := r.size(4)
	if err != nil {
		return nil, err
	}
	o := make(map[string]any, min(n, 64))
	for range n {
		k, err := r.term(depth + 1)
		if err != nil {
			return nil, err
		}
		name, ok := k.(string)
		if !ok {
			return nil, errors.New("a key is no text")
		}
		if o[name], err = r.term(depth + 1); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (r *reader) list(depth int) (any, error) {
	l, err := r.elements(depth, 4)
	if err != nil {
		return nil, err
	}
	tail, err := r.take(1)
	if err != nil {
		return nil, err
	}
	if tail[0] != tagNil {
		return nil, errors.New("a list has a tail")
	}
	return l, nil
}

func (r *reader) elements(depth, lengthBytes int) (any, error) {
	n, err := r.size(lengthBytes)
	if err != nil {
		return nil, err
	}
	l := make([]any, 0, min(n, 64))
	for range n {
		v, err := r.term(depth + 1)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	return l, nil
}

// smallIntegers is how a list of bytes is sent.
func (r *reader) smallIntegers() (any, error) {
	n, err := r.size(2)
	if err != nil {
		return nil, err
	}
	b, err := r.take(n)
	if err != nil {
		return nil, err
	}
	l := make([]any, n)
	for i, c := range b {
		l[i] = int64(c)
	}
	return l, nil
}
