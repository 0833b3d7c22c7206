package fault

import "net/http"

// HTTPStatus is the status with which a server answers an error of this kind.
func HTTPStatus(kind Kind) int {
	switch kind {
	case NotFound:
		return http.StatusNotFound
	case Conflict:
		return http.StatusConflict
	case Invalid:
		return http.StatusBadRequest
	case Unauthorized:
		return http.StatusUnauthorized
	case Forbidden:
		return http.StatusForbidden
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case Unavailable:
		return http.StatusServiceUnavailable
	case Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// FromHTTPStatus is the kind that a client makes of an answer. Whatever a repeat
// may cure (408, 425, 429, 500, 502, 503, 504) is Unavailable, because an
// Internal error of the server says nothing about the client; every other 4xx
// without a kind of its own is Invalid. Success and redirects, which are no
// errors, are Internal: to ask is the defect.
func FromHTTPStatus(status int) Kind {
	switch status {
	case http.StatusNotFound, http.StatusGone:
		return NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return Conflict
	case http.StatusUnauthorized:
		return Unauthorized
	case http.StatusForbidden:
		return Forbidden
	case http.StatusRequestEntityTooLarge:
		return TooLarge
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return Unavailable
	}
	if status >= 400 && status < 500 {
		return Invalid
	}
	if status >= 500 && status != http.StatusNotImplemented {
		return Unavailable
	}
	return Internal
}
