// unitd runs *.service units on a host without Docker: the Fleet HTTP API v1
// in front, direct supervision of processes or systemd behind.
package main

import (
	"os"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/services/unitd/internal/shim"
)

// version is set by the linker.
var version = "dev"

func main() {
	// The shim of a unit is the same binary, so that no other file has to be found.
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(shim.Main(os.Args[2:]))
	}
	boot.Main(boot.Service[Config]{
		Name: "unitd", Version: version, Sample: sample, Default: DefaultConfig, Run: run,
		About: "unitd runs *.service units on one host and speaks the Fleet HTTP API v1. The units outlive it:\n" +
			"stopping, killing or upgrading unitd does not touch them.",
		Commands: []boot.Command[Config]{{
			Name:  "stop-all",
			About: "stop every unit of a unitd that has ended; 'stop-all forget' sets them inactive for good",
			Run:   stopAll,
		}},
	})
}
