package api

import (
	"encoding/json"
	"errors"
	"net/http"
)

// errCut ends an answer that has begun and cannot be completed: the connection is cut.
var errCut = errors.New("the answer is cut")

// stream writes a list as it is read. An error before the first row is answered as any other; later the connection is
// cut, so that nobody takes a part for the whole.
func stream[T any](w http.ResponseWriter, rows func(func(T) error) error) error {
	begun := false
	write := func(row T) error {
		raw, err := json.Marshal(row)
		if err != nil {
			return err
		}
		separator := ","
		if !begun {
			beginList(w)
			begun, separator = true, "["
		}
		_, err = w.Write(append([]byte(separator), raw...))
		return err // the client hung up
	}
	if err := rows(write); err != nil {
		if begun {
			return errCut
		}
		return err
	}
	end := "]"
	if !begun {
		beginList(w)
		end = "[]"
	}
	_, _ = w.Write([]byte(end))
	return nil
}

func beginList(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=0, private, must-revalidate")
	w.WriteHeader(http.StatusOK)
}
