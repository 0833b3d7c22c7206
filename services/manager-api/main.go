// Command manager-api owns the database of OpenAperture: it serves the REST API, moves upgrades and workflows by their
// tables, sends orders to the brokers of all exchanges and takes their results. Any number of replicas may run.
package main

import "github.com/openaperture/openaperture/pkg/boot"

// version is stamped at build time: -ldflags "-X main.version=v1.2.3".
var version = "dev"

func main() {
	boot.Main(boot.Service[config]{
		Name: "manager-api", Version: version, Sample: sample, Default: defaultConfig, Run: run,
		About: "Manager-api is the memory and the REST API of OpenAperture: what should run where, what runs, and how it " +
			"gets there.",
	})
}
