package service

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Infinity is the time span that never ends.
const Infinity = time.Duration(math.MaxInt64)

const day = 24 * time.Hour

// spanUnits are the suffixes of systemd.time(7); a bare number is seconds.
var spanUnits = map[string]time.Duration{
	"us": time.Microsecond, "usec": time.Microsecond, "µs": time.Microsecond,
	"ms": time.Millisecond, "msec": time.Millisecond,
	"": time.Second, "s": time.Second, "sec": time.Second, "second": time.Second, "seconds": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": day, "day": day, "days": day, "w": 7 * day, "week": 7 * day, "weeks": 7 * day,
}

// ParseSpan reads a systemd time span such as `5min 20s`, `1.5s`, `90` or `infinity`.
func ParseSpan(text string) (time.Duration, error) {
	rest := strings.TrimSpace(text)
	if rest == "infinity" {
		return Infinity, nil
	}
	if rest == "" {
		return 0, fmt.Errorf("time span is empty")
	}
	total := 0.0
	for rest != "" {
		digits := strings.TrimLeft(rest, "0123456789.")
		number, err := strconv.ParseFloat(rest[:len(rest)-len(digits)], 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no time span", text)
		}
		rest = strings.TrimLeft(digits, " \t")
		end := strings.IndexAny(rest, "0123456789. \t")
		if end < 0 {
			end = len(rest)
		}
		scale, ok := spanUnits[rest[:end]]
		if !ok {
			return 0, fmt.Errorf("%q is no time span: unknown unit %q", text, rest[:end])
		}
		total += number * float64(scale)
		rest = strings.TrimLeft(rest[end:], " \t")
	}
	if total >= float64(math.MaxInt64) {
		return Infinity, nil
	}
	return time.Duration(total), nil
}
