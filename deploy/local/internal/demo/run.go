package demo

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/times"
)

// Run tells the whole story on a stack, which it brings up first, and leaves the stack up.
func Run(ctx context.Context, s *stack.Stack, out io.Writer, terminal bool) error {
	if s.Profile != times.Fast {
		return fmt.Errorf("the stack runs with profile %s, whose checks are an hour apart: make down, then make demo",
			s.Profile)
	}
	began := time.Now()
	if err := s.Up(ctx, func(what string) {
		fmt.Fprintf(out, "%6.1fs  starting %s\n", time.Since(began).Seconds(),
			what)
	}); err != nil {
		return err
	}
	story := &Story{Stack: s, Out: out, Terminal: terminal}
	if err := story.Prepare(ctx, stack.Own[1], stack.NeverReady); err != nil {
		return err
	}
	fmt.Fprintf(out, "ready after %.1f s; watch it at %s\n\n", time.Since(began).Seconds(), s.URL())
	for _, act := range []func(context.Context) error{story.Upgrade, story.Fail, story.Hello} {
		if err := act(ctx); err != nil {
			story.Summary()
			return err
		}
	}
	story.Summary()
	fmt.Fprintf(out, "  %6.1f  in all, with starting the stack and building releases\n", time.Since(began).Seconds())
	Leave(s, out)
	return story.InTime()
}

// Leave says how to use a stack that runs.
func Leave(s *stack.Stack, out io.Writer) {
	fmt.Fprintf(out, `
the stack is up:
  manager-api  %s
  unitd        %s
  token        %s
  environment  . %s
stop it with: make down
`, s.URL(), s.UnitdURL(), s.TokenFile(), s.EnvFile())
}
