// Package systemd is the backend that lets systemd run the units, over D-Bus.
//
// Invariants:
//   - A unit file is written whole or not at all (temporary file, fsync,
//     rename) and begins with a mark of this unitd. A unit without that mark is
//     somebody else's and is never written, started, stopped or removed.
//   - `Restart=`, `User=`, limits and sandboxing are systemd's. unitd adds one
//     setting, StartLimitIntervalSec=0 where a unit has none of its own: the
//     fifth quick start of a unit is as good as the first (package host decides
//     when there is one).
//   - Others may start and stop our units. What runs is of the definition that
//     the unit's note names, or is replaced; so the note is written when systemd
//     has read the unit file, and before the order to start it, and names the
//     run that was there by then.
//   - An order that systemd may not have got is given again by the next unitd.
//     It has got one if the note says so, or if the unit was started since.
package systemd
