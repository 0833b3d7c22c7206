package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
)

// idle is how long the suite rests before its memory is read.
const idle = 60 * time.Second

// footprint measures resident memory of each service after a minute of rest with its modules beating, and how long a
// service takes from its start until it is ready, with its servers up.
func (b *bench) footprint(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idle):
	}
	running, err := proc.Running(b.stack.Releases())
	if err != nil {
		return err
	}
	for _, p := range running {
		mib, err := resident(p.PID)
		if err != nil {
			return err
		}
		b.line("RSS "+p.Hostname[strings.LastIndexByte(p.Hostname, '.')+1:], "%8.1f MB   goal ≤ 25", mib)
	}
	for _, v := range stack.Own {
		var took []float64
		for range 5 {
			ms, err := b.start(ctx, v)
			if err != nil {
				return err
			}
			took = append(took, ms)
		}
		b.line("ready "+v.Name, "%8.0f ms   %s   goal ≤ 150", median(took), spread(took))
	}
	return nil
}

func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kib, err := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d shows no memory", pid)
}

// start runs one more instance of a service beside the suite until it is ready, and stops it.
func (b *bench) start(ctx context.Context, v stack.Service) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	state, err := os.MkdirTemp("", "openaperture-bench-")
	if err != nil {
		return 0, fmt.Errorf("make a state directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(state) }()
	address := fmt.Sprintf("127.0.0.1:%d", b.stack.Listen[v.Name]+9)
	//nolint:gosec // our own release
	cmd := exec.CommandContext(ctx, b.stack.Binary(stack.First, v), "--config", b.stack.ConfigFile(v))
	cmd.Env = append(os.Environ(), "HOSTNAME=bench."+v.Name, "OPENAPERTURE_LISTEN="+address)
	if v.Type == "deployer" {
		cmd.Env = append(cmd.Env, "OPENAPERTURE_STATE_DIR="+state)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", v.Name, err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
		if err != nil {
			return 0, err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return float64(time.Since(began).Microseconds()) / 1000, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s has not become ready: %w", v.Name, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
