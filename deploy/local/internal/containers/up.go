package containers

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
)

// patience bounds the start of the whole stack.
const patience = 3 * time.Minute

// UpToReady brings the project up, registers its exchange and waits until everything is healthy. It returns how long
// that took.
func (p Project) UpToReady(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.Init(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := p.Up(ctx); err != nil {
		return 0, err
	}
	api, err := p.Client()
	if err != nil {
		return 0, err
	}
	if err := stack.RegisterExchange(ctx, api); err != nil {
		return 0, err
	}
	err = p.await(ctx)
	return time.Since(began), err
}

func (p Project) await(ctx context.Context) error {
	for {
		err := p.Healthy(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until project %s is healthy: %w: %w", p.Name, ctx.Err(), err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// Figures writes the size of each image and the memory of each container.
func (p Project) Figures(ctx context.Context, out io.Writer) error {
	images, err := p.Images(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "image\tMB")
	for _, tag := range slices.Sorted(maps.Keys(images)) {
		fmt.Fprintf(table, "%s\t%.1f\n", tag, float64(images[tag].Size)/1e6)
	}
	all, err := p.Containers(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b Container) int { return cmp.Compare(a.Name, b.Name) })
	args := []string{"stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}"}
	for _, c := range all {
		args = append(args, c.ID)
	}
	used, err := p.run(ctx, "docker", args...)
	if err != nil {
		return err
	}
	fmt.Fprintln(table, "\ncontainer\tmemory")
	for line := range strings.Lines(used) {
		if words := strings.Fields(line); len(words) > 1 {
			fmt.Fprintf(table, "%s\t%s\n", words[0], words[1])
		}
	}
	return table.Flush()
}
