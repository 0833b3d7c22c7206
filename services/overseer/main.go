// Command overseer judges one messaging exchange: it receives the heartbeats of its modules, checks components against
// the gold standard, starts what is eligible, says what is proven and sweeps what is silent. One of its replicas leads.
package main

import "github.com/openaperture/openaperture/pkg/boot"

// version is stamped at build time: -ldflags "-X main.version=v1.2.3".
var version = "dev"

func main() {
	boot.Main(boot.Service[config]{
		Name: "overseer", Version: version, Sample: sample, Default: defaultConfig, Run: run,
		About: "Overseer judges one messaging exchange of OpenAperture: what runs there, what is to be upgraded, and what " +
			"is proven.",
	})
}
