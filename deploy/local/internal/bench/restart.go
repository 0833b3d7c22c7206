package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
)

// fleet is the bare baseline of an upgrade: three processes of the same program, and nothing that looks after them.
type fleet struct {
	dir     string
	listen  int
	running []*exec.Cmd
}

// start brings the instances up in a release.
func (f *fleet) start(ctx context.Context, release string) error {
	for i := range stack.Hello.Instances {
		cmd, err := f.launch(ctx, release, i)
		if err != nil {
			return err
		}
		f.running = append(f.running, cmd)
	}
	return nil
}

// replace writes three units and then stops and starts one process after the other, each until it says that it is
// ready.
func (f *fleet) replace(ctx context.Context, release string) (time.Duration, error) {
	began := time.Now()
	for i := range f.running {
		unit := fmt.Sprintf("[Service]\nType=notify\nExecStart=%s\n", release)
		if err := os.WriteFile(filepath.Join(f.dir, fmt.Sprintf("hello@%d.service", i)), []byte(unit), 0o600); err != nil {
			return 0, fmt.Errorf("write unit: %w", err)
		}
	}
	for i := range f.running {
		f.end(i)
		cmd, err := f.launch(ctx, release, i)
		if err != nil {
			return 0, err
		}
		f.running[i] = cmd
	}
	return time.Since(began), nil
}

func (f *fleet) end(i int) {
	_ = f.running[i].Process.Signal(syscall.SIGTERM)
	_ = f.running[i].Wait()
}

func (f *fleet) stop() {
	for i := range f.running {
		f.end(i)
	}
}

// launch starts one process and waits for its READY=1.
func (f *fleet) launch(ctx context.Context, release string, i int) (*exec.Cmd, error) {
	path := filepath.Join(f.dir, fmt.Sprintf("notify-%d", i))
	_ = os.Remove(path)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for readiness: %w", err)
	}
	defer func() { _ = socket.Close() }()
	cmd := exec.CommandContext(ctx, release) //nolint:gosec // our own release
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, fmt.Sprintf("OPENAPERTURE_LISTEN=127.0.0.1:%d", f.listen+i))
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start an instance: %w", err)
	}
	if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, fmt.Errorf("bound the wait for readiness: %w", err)
	}
	for buf := make([]byte, 1024); ; {
		n, err := socket.Read(buf)
		if err != nil {
			return nil, fmt.Errorf("wait for readiness: %w", err)
		}
		if strings.Contains(string(buf[:n]), "READY=1") {
			return cmd, nil
		}
	}
}
