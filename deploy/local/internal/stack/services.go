package stack

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/openaperture/openaperture/pkg/component"
)

// The services by name; it is that of their binary, and the base of their unit.
const (
	managerAPI = "manager-api"
	overseer   = "overseer"
	deployer   = "deployer"
	deployerOA = "deployer-oa"
	hello      = "hello"
)

// listening are the services that need ports.
var listening = []string{managerAPI, overseer, deployer, deployerOA, hello}

// Service is one service of the stack: a unit template in a deployment repository of its own.
type Service struct {
	Name      string
	Type      component.Type // the component that it belongs to
	Phase     int            // of that component's upgrade, which replaces it
	Repo      string         // name of its deployment repository
	Instances int
}

// Own are OpenAperture's services in the order in which they start.
var Own = []Service{
	{Name: managerAPI, Type: component.Manager, Phase: 1, Repo: "manager", Instances: 1},
	{Name: overseer, Type: component.Overseer, Phase: 1, Repo: "overseer", Instances: 2},
	{Name: deployer, Type: component.Deployer, Phase: 1, Repo: "deployer", Instances: 1},
	{Name: deployerOA, Type: component.Deployer, Phase: 2, Repo: "deployer_oa", Instances: 1},
}

// Hello is a service that is no part of OpenAperture. It sends no heartbeats: its proof is its runtime's word.
var Hello = Service{Name: hello, Type: "hello", Phase: 1, Repo: "hello", Instances: 3}

// Unit is the name of one instance.
func (v Service) Unit(instance int) string { return fmt.Sprintf("%s@%d.service", v.Name, instance) }

// template is <app>@.service.tmpl. Versions come from the release's directory; what differs between instances comes
// from %i. Secrets are in files that the configuration names.
func (s *Stack) template(v Service) string {
	environment := fmt.Sprintf("Environment=HOSTNAME=%%H.%s-%%i OPENAPERTURE_LISTEN=127.0.0.1:%d%%i", v.Name,
		s.Listen[v.Name]/10)
	if v.Name == deployer || v.Name == deployerOA {
		environment += " OPENAPERTURE_STATE_DIR=" + s.path("state", v.Name+"-%i")
	}
	environment += s.linkedEnvironment(v)
	start := "ExecStart=" + s.path("releases", "{{.source_ref}}", v.Name)
	if v.Name != hello {
		start += " --config " + s.path("config", v.Name+".yaml")
	}
	return strings.Join([]string{
		"[Unit]", "Description=" + v.Name + " %i of the local stack", "",
		"[Service]", "Type=notify", environment, start,
		"Restart=always", "RestartSec=500ms", "TimeoutStartSec=30s", "TimeoutStopSec=30s", "",
	}, "\n")
}

// Deployment is what the deployment repository of a service holds: texts by file name.
func (s *Stack) Deployment(v Service) map[string]string {
	return map[string]string{
		v.Name + "@.service.tmpl": s.template(v),
		"etcd.json":               fmt.Sprintf("{\"token\": %q}\n", clusterToken),
		"fleet.json":              fmt.Sprintf("{\"instance_cnt\": %d}\n", v.Instances),
		"docker.json":             fmt.Sprintf("{\"docker_url\": \"openaperture/%s\"}\n", v.Name),
		"source.json":             fmt.Sprintf("{\"source_repo\": %q}\n", s.SourceRepo(v)),
	}
}

// SourceRepo is the source repository of a service. That of OpenAperture is one for all.
func (s *Stack) SourceRepo(v Service) string {
	if v.Name == hello {
		return s.repo("hello_source")
	}
	return s.repo("openaperture")
}

// DeploymentRepo is the deployment repository of a service.
func (s *Stack) DeploymentRepo(v Service) string { return s.repo(v.Repo) }

// repo is the address of a repository: where those who fetch it see it.
func (s *Stack) repo(name string) string {
	return filepath.Join(cmp.Or(s.ReposAt, s.Repositories()), name+".git")
}

// place is where the repository of an address lies.
func (s *Stack) place(address string) string {
	return filepath.Join(s.Repositories(), filepath.Base(address))
}

// Repositories is the directory of the repositories.
func (s *Stack) Repositories() string { return s.path("repos") }
