package demo

import "time"

// Rows are the rows of the table, without what /proc tells.
var Rows = rows

// Promised is how long a story may take.
const Promised = promised

// Told is a story that took a while.
func Told(took time.Duration) *Story {
	s := &Story{Ready: time.Now()}
	s.ended = s.Ready.Add(took)
	return s
}
