// Package deploy is the engine of the executors deployer and deployer-oa: it takes milestone orders from its queue, claims
// them, performs them one at a time and reports (docs/deployment.md).
//
// Invariants:
//   - Nothing is touched without a token, and every touch carries it; told that a higher token exists, the engine touches
//     nothing more. Without manager-api it goes on until the order's deadline.
//   - Before the first touch the work file of the order is on disk: what was found and what is wanted. Killed at any
//     instruction, the engine finishes from it; what is done already is seen as done and is not done again.
//   - A result is sent until the broker confirms it. Its message id is a function of order, token and event, so that a
//     repeat is known as one.
//   - An order that replaced manager-api, or failed half way over it, and is not settled within its progress_deadline is
//     undone. What it returns to is what was there before its first attempt.
//
// The hard context of Run is the process's life: when it ends, everything stops where it is. A graceful stop finishes the
// instance in hand, gives claims back and leaves the work file to the next start.
package deploy
