// Package deploy is the engine of the executors deployer and deployer-oa: it takes milestone orders from its queue,
// claims them, performs them and reports (docs/deployment.md). Orders that share neither component nor unit are worked
// on side by side. A probe is answered beside all of them.
//
// Invariants:
//   - Nothing is touched without a token, and every touch carries it. Told that a higher token exists, the engine
//     touches nothing more. Without manager-api it goes on until the order's deadline.
//   - Before the first touch the work file of the order is on disk: what was found and what is wanted. Killed at any
//     instruction, the engine finishes from it. What is done already is seen as done and is not done again.
//   - The stage of a work file moves by one table, in stage.go, and through one function, works.advance.
//   - A result is sent until the broker confirms it. Its message id is a function of order, token and event, so that a
//     repeat is known as one.
//   - An order that replaced manager-api, or failed half way over it, and is not settled within its progress_deadline
//     is undone. What it returns to is what was there before its first attempt.
//   - No order costs another one its time: each has its own claim, its own deadline and its own progress. A panic ends
//     its own order.
//
// The context of Run is the process's life: when it ends, everything stops where it is. A graceful stop finishes the
// instances in hand, gives claims back and leaves the work files to the next start.
package deploy
