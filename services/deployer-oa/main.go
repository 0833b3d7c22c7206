// Command deployer-oa executes the workflows that end in deploy_oa: OpenAperture's own components, the deployer among
// them.
package main

import (
	_ "embed"

	"github.com/openaperture/openaperture/pkg/deploy"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// version is stamped at build time: -ldflags "-X main.version=v1.2.3".
var version = "dev"

//go:embed sample.yaml
var sample []byte

func main() { deploy.Main(executor()) }

func executor() deploy.Executor {
	return deploy.Executor{Name: "deployer-oa", Version: version, Listen: "127.0.0.1:8083", Sample: sample,
		Queue: messages.QueueDeployOA, Milestone: messages.MilestoneDeployOA,
		About: "Deployer-oa executes the workflows that end in deploy_oa: OpenAperture's own components, " +
			"the deployer among them."}
}
