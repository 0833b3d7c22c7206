// Package cluster has the specs of pkg/rabbit against a cluster of three nodes that are killed, frozen and cut apart.
package cluster_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/servers"
	"github.com/openaperture/openaperture/pkg/rabbittest"
)

func TestCluster(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(60 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	RunSpecs(t, "cluster", Label("integration"))
}

// The cluster of the suite. Members reach each node through a proxy, which knows how many connections there are.
var (
	mq      servers.Cluster
	proxies []*rabbittest.Proxy
)

var _ = BeforeSuite(func(ctx SpecContext) {
	dir, err := os.MkdirTemp("/var/tmp", "openaperture-cluster-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	mq, err = servers.NewCluster(ctx, dir, 3, "guest", "guest")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) { Expect(mq.Kill(ctx)).To(Succeed()) })
	Expect(mq.Start(ctx)).To(Succeed())
	for _, n := range mq.Nodes {
		proxies = append(proxies, rabbittest.NewProxy(fmt.Sprintf("127.0.0.1:%d", n.Port)))
	}
}, NodeTimeout(3*time.Minute))

// urls are the addresses of all nodes, as a member has them.
func urls() []string {
	var list []string
	for i, n := range mq.Nodes {
		list = append(list, strings.Replace(n.URL(), fmt.Sprintf("127.0.0.1:%d", n.Port), proxies[i].Address(), 1))
	}
	return list
}

// leaderOf is the index of the node that leads a quorum queue.
func leaderOf(queue string) int {
	GinkgoHelper()
	found := -1
	Eventually(func(g Gomega) {
		for _, n := range mq.Nodes {
			var q struct {
				Leader string `json:"leader"`
			}
			if n.Manage(context.Background(), "/api/queues/%2F/"+queue, &q) != nil {
				continue
			}
			for i := range mq.Nodes {
				if mq.Nodes[i].Name() == q.Leader {
					found = i
				}
			}
		}
		g.Expect(found).NotTo(Equal(-1))
	}).Should(Succeed())
	return found
}

func signal(node int, sig syscall.Signal) {
	GinkgoHelper()
	Expect(mq.Nodes[node].Signal(sig)).To(Succeed())
}
