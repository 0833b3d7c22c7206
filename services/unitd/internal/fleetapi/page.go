package fleetapi

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// pageSize is Fleet's; a page token of another size is refused.
const pageSize = 100

// pageToken is base64 of two little-endian uint16.
type pageToken struct {
	Limit uint16
	Page  uint16
}

// parsePage returns the page number that a nextPageToken asks for, 1 for none.
func parsePage(text string) (int, error) {
	if text == "" {
		return 1, nil
	}
	raw, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		return 0, err
	}
	var token pageToken
	if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, &token); err != nil {
		return 0, err
	}
	switch {
	case token.Limit != pageSize:
		return 0, fmt.Errorf("token limit must be %d", pageSize)
	case token.Page == 0:
		return 0, errors.New("token page must be greater than zero")
	}
	return int(token.Page), nil
}

// pageOf cuts one page out of a list and names the next one, "" for the last.
func pageOf[T any](list []T, page int) ([]T, string) {
	from := (page - 1) * pageSize
	if from >= len(list) {
		return nil, ""
	}
	to := min(from+pageSize, len(list))
	if to == len(list) {
		return list[from:], ""
	}
	raw := binary.LittleEndian.AppendUint16(nil, pageSize)
	raw = binary.LittleEndian.AppendUint16(raw, uint16(page+1))
	return list[from:to], base64.URLEncoding.EncodeToString(raw)
}
