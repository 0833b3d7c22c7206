// Package servers runs private PostgreSQL and RabbitMQ servers out of the distribution's packages: on loopback, on
// free ports below the kernel's ephemeral range, in directories of their own, never as system services.
//
// A server's description is plain data, so that another process can find, stop and start it again. Start and Stop are
// idempotent: starting what runs and stopping what does not run change nothing.
package servers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The range of ports to choose from: above the well-known ones, below 32768, where the kernel's ephemeral range starts
// and a client's socket could take a server's port.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// FreePorts returns n different ports on which nothing listens. A further call may return the same ports, so ask once
// for all that you need.
func FreePorts(ctx context.Context, n int) ([]int, error) {
	blocks, err := FreeBlocks(ctx, n, 1)
	return blocks, err
}

// FreeBlocks returns the first port of n disjoint blocks of the given size on which nothing listens. Each block begins
// at a multiple of its size. So a block of ten can be written into a unit as "2134%i": one port per instance.
func FreeBlocks(ctx context.Context, n, size int) ([]int, error) {
	var found []int
	taken := map[int]bool{}
	for range 2000 {
		first := (lowestPort + rand.IntN(highestPort-lowestPort)) / size * size //nolint:gosec // a port is no secret
		if taken[first] || !blockIsFree(ctx, first, size) {
			continue
		}
		taken[first] = true
		if found = append(found, first); len(found) == n {
			return found, nil
		}
	}
	return nil, fmt.Errorf("find %d blocks of %d free ports between %d and %d: too many are in use", n, size, lowestPort,
		highestPort)
}

func blockIsFree(ctx context.Context, first, size int) bool {
	for port := first; port < first+size; port++ {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}
