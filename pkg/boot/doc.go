// Package boot is what all binaries share, so that a main is one call: flags and
// subcommands, configuration, log, health and metrics over HTTP, signals,
// systemd notification and trace context.
//
//	func main() {
//		boot.Main(boot.Service[Config]{
//			Name: "overseer", Version: version, About: "...", Sample: sample,
//			Default: DefaultConfig, Run: run,
//		})
//	}
//
//	func run(ctx context.Context, cfg Config, env *boot.Env) error {
//		... assemble; env.Health.Add("broker", session.Ping); env.Handle(routes) ...
//		return env.RunParts(ctx, parts...)
//	}
//
// Invariants: the process ends with 2 only for a wrong configuration or command
// line, with 1 only if Run failed; it is not ready before RunParts (or
// Health.Started) was called, so a half assembled service never is; a graceful
// stop is bounded and a second signal ends the process at once.
package boot
