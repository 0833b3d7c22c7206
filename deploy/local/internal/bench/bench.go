package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

type bench struct {
	stack *stack.Stack
	out   io.Writer
	db    *sqlx.DB
	api   *managerapi.Client
}

// Run measures on a stack of its own, which must not have run anything else, and prints figures and ratios, median of
// five. Nothing is asserted: a figure that misses its goal says so by itself.
func Run(ctx context.Context, s *stack.Stack, out io.Writer) error {
	began := time.Now()
	if err := s.Up(ctx, func(what string) {
		fmt.Fprintf(out, "%6.1fs  starting %s\n", time.Since(began).Seconds(),
			what)
	}); err != nil {
		return err
	}
	b := &bench{stack: s, out: out}
	var err error
	if b.api, err = s.Client(); err != nil {
		return err
	}
	if b.db, err = bareDB(ctx, s.DatabaseURL()); err != nil {
		return err
	}
	defer func() { _ = b.db.Close() }()
	fmt.Fprintln(out)
	for _, part := range []func(context.Context) error{b.footprint, b.upgrades, b.heartbeats} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) line(what, format string, args ...any) {
	fmt.Fprintf(b.out, "%-34s %s\n", what, fmt.Sprintf(format, args...))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return (sorted[len(sorted)/2] + sorted[(len(sorted)-1)/2]) / 2
}

// spread shows the extremes beside a median.
func spread(values []float64) string {
	format := "%.0f to %.0f"
	if slices.Max(values) < 100 {
		format = "%.2f to %.2f"
	}
	return fmt.Sprintf("("+format+", %d runs)", slices.Min(values), slices.Max(values), len(values))
}
