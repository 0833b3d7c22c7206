// Package faults holds specs of what the suite survives, on one real stack: bad versions of each service, servers and
// services that go away in mid-upgrade, messages and repositories that are no good. After each spec the stack must be
// right again by itself. They take minutes, so that they stand behind the build tag e2e: `make faults`.
package faults
