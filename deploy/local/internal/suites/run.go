package suites

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/servers"
)

// ErrNotGreen says that something failed, was skipped or is pending.
var ErrNotGreen = errors.New("not everything passed")

// Run starts private servers, runs the tests of every module of the workspace under the race detector against them,
// stops the servers and writes the totals as the last line. root is the workspace; args are further ones of go test, in
// front of the packages, which default to all.
func Run(ctx context.Context, root string, out io.Writer, args, packages []string) error {
	dir, err := os.MkdirTemp("/var/tmp", "openaperture-test-")
	if err != nil {
		return fmt.Errorf("make a directory for the servers: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // what is inside is 0700
		return fmt.Errorf("open the directory of the servers: %w", err)
	}
	pg, mq, err := describe(ctx, dir)
	if err != nil {
		return err
	}
	// The servers are stopped also when ctx has ended: nothing may be left behind.
	defer func() { _, _ = pg.Stop(context.WithoutCancel(ctx)), mq.Stop(context.WithoutCancel(ctx)) }()
	if err := errors.Join(pg.Start(ctx), mq.Start(ctx)); err != nil {
		return err
	}
	totals, err := goTest(ctx, root, out, pg, mq, args, packages)
	if err != nil {
		return err
	}
	for _, of := range totals.Broken {
		fmt.Fprintln(out, "broken:", of)
	}
	fmt.Fprintf(out, "%d specs pending\n%s\n", totals.Pending, totals)
	if !totals.OK() {
		return ErrNotGreen
	}
	return nil
}

func describe(ctx context.Context, dir string) (servers.Postgres, servers.RabbitMQ, error) {
	ports, err := servers.FreePorts(ctx, 5)
	if err != nil {
		return servers.Postgres{}, servers.RabbitMQ{}, err
	}
	pg := servers.Postgres{Dir: filepath.Join(dir, "postgres"), Port: ports[0], Password: "postgres", Throwaway: true}
	mq := servers.RabbitMQ{Dir: filepath.Join(dir, "rabbitmq"), Port: ports[1], Dist: ports[2], Epmd: ports[3],
		Management: ports[4],
		User:       "guest", Password: "guest"}
	return pg, mq, nil
}

func goTest(ctx context.Context, root string, out io.Writer, pg servers.Postgres, mq servers.RabbitMQ, args,
	packages []string) (Totals, error) {
	all := append([]string{"test", "-json", "-race", "-shuffle=on", "-timeout=15m"}, args...)
	cmd := exec.CommandContext(ctx, "go", append(all, packages...)...)
	cmd.Dir, cmd.Stderr = root, out
	cmd.Env = append(os.Environ(), "GOWORK="+filepath.Join(root, "go.work"),
		"TEST_DATABASE_URL="+pg.URL("postgres"), "TEST_AMQP_URL="+mq.URL(), "TEST_RABBIT_MANAGEMENT_URL="+mq.ManagementURL())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // the test binaries too
	cmd.WaitDelay = 20 * time.Second
	events, err := cmd.StdoutPipe()
	if err != nil {
		return Totals{}, fmt.Errorf("run go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return Totals{}, fmt.Errorf("run go test: %w", err)
	}
	totals, readErr := Read(events, out)
	waitErr := cmd.Wait()
	if readErr != nil {
		return totals, readErr
	}
	if ctx.Err() != nil {
		return totals, ctx.Err()
	}
	if waitErr != nil && totals.Failed == 0 { // it could not even begin
		totals.Failed++
		totals.Broken = append(totals.Broken, "go test: "+waitErr.Error())
	}
	return totals, nil
}
