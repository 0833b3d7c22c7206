// Command deployer executes the workflows that end in deploy: the components of users, and deployer-oa.
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
	return deploy.Executor{Name: "deployer", Version: version, Listen: "127.0.0.1:8082", Sample: sample,
		Queue: messages.QueueDeployer, Milestone: messages.MilestoneDeploy,
		About: "Deployer executes the workflows that end in deploy: the components of users, and deployer-oa."}
}
