// Package systemd is the backend that lets systemd run the units, over D-Bus.
//
// Invariants:
//   - A unit file is written whole or not at all (temporary file, fsync,
//     rename). It begins with a mark of this unitd. A unit without that mark is
//     somebody else's: it is never written, started, stopped or removed.
//   - `Restart=`, `User=`, limits and sandboxing are systemd's. unitd adds one
//     setting, StartLimitIntervalSec=0, to a unit that sets no start limit.
//     Otherwise systemd would refuse the fifth quick start, which package host
//     has ordered.
//   - Others may start and stop our units. A run that is not of the definition
//     in the unit's note is replaced. Therefore the note is written after
//     systemd has read the unit file and before the order to start the unit,
//     and it names the run that was there at that time.
//   - If systemd may not have got an order, the next unitd gives it again.
//     systemd has got it if the note says so, or if the unit was started since.
package systemd
