package service

import "time"

// Exit says how an activation ended.
type Exit struct {
	At        time.Time
	Result    Result
	Detail    string // for people: "exit-code 1", "signal killed", "timeout"
	Requested bool   // a stop was asked for; Restart= does not apply
	Final     bool   `json:",omitempty"` // whoever ran it has applied Restart= itself
}
