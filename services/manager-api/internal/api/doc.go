// Package api is manager-api's REST server: authentication, the role × route table, the predecessor's families with
// their error shapes, and the new resources with problem details (docs/rest.md).
//
// Invariants: every route states who may call it, or registration panics. Without tokens in the configuration every
// request that needs one is refused. A token that is bound to an exchange sees nothing outside of it: foreign ids are
// not found. The text of an internal error is logged and never shown.
package api
