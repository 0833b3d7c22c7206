package api

import (
	"context"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
)

// Role is what a token may be used for.
type Role string

// The five roles. Service and module tokens are bound to one exchange.
const (
	RoleAdmin    Role = "admin"
	RoleOperator Role = "operator"
	RoleViewer   Role = "viewer"
	RoleService  Role = "service"
	RoleModule   Role = "module"
)

// RoleList is every role, for tables and exhaustive specs.
var RoleList = []Role{RoleAdmin, RoleOperator, RoleViewer, RoleService, RoleModule}

// Access is the set of roles that may call a route. The zero value is no decision at all and is refused at
// registration.
type Access uint8

// The sets that routes use. An admin may do everything.
const (
	Public   Access = 1 << iota // without a token
	forAdmin                    //
	forOperator
	forViewer
	forService
	forModule

	Admins    = forAdmin
	Operators = forAdmin | forOperator                          // changes of components, upgrades, workflows, events
	Services  = forAdmin | forService                           // judgements, claims, batches
	Modules   = forAdmin | forService | forModule               // heartbeats, connections
	Readers   = Operators | forViewer | forService              // what people and services read
	Members   = Readers | forModule                             // what a module needs to find its broker
	Reporters = forAdmin | forOperator | forService | forModule // who raises events
)

// Allows reports whether the role is in the set.
func (a Access) Allows(role Role) bool {
	switch role {
	case RoleAdmin:
		return a&forAdmin != 0
	case RoleOperator:
		return a&forOperator != 0
	case RoleViewer:
		return a&forViewer != 0
	case RoleService:
		return a&forService != 0
	case RoleModule:
		return a&forModule != 0
	default:
		return false
	}
}

// Caller is who makes a request. ExchangeID is 0 for a token that is not bound to an exchange.
type Caller struct {
	Name       string
	Role       Role
	ExchangeID component.ExchangeID
}

// Within reports whether the caller may know about an exchange.
func (c Caller) Within(id component.ExchangeID) bool { return c.ExchangeID == 0 || c.ExchangeID == id }

// May reports whether the caller's role is in the set, for rules finer than a route.
func (c Caller) May(a Access) bool { return a.Allows(c.Role) }

type contextKey int

const (
	callerKey contextKey = iota
	requestIDKey
)

// callerOf is the authenticated caller; the zero Caller, which may do nothing, on public routes.
func callerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey).(Caller)
	return c
}

// requestIDOf is the id of the request, for the journal.
func requestIDOf(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey).(string)
	return id
}

// inScope is NotFound for an exchange that the caller may not know about: outside its own exchange nothing exists.
func inScope(ctx context.Context, id component.ExchangeID) error {
	if callerOf(ctx).Within(id) {
		return nil
	}
	return fault.New(fault.NotFound, "no such exchange")
}
