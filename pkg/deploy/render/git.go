package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
)

// GitConfig says which repositories may be fetched, and how patiently.
type GitConfig struct {
	// CacheDir holds one bare repository per address. It may be deleted at any time.
	CacheDir string
	// AllowLocal permits absolute local paths, for development and demonstrations.
	AllowLocal bool
	// Hosts, if not empty, are the only hosts that may be contacted; they may have private addresses. If it is empty,
	// any host with public addresses may be.
	Hosts []string
	// SSHKeyFile and KnownHostsFile are for ssh: without known hosts no host is trusted.
	SSHKeyFile, KnownHostsFile string
	// Timeout bounds one exchange with a remote, 60 s if zero.
	Timeout time.Duration
	// MaxBytes bounds one cached repository, 128 MiB if zero.
	MaxBytes int64
}

func (c GitConfig) withDefaults() GitConfig {
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 128 << 20
	}
	return c
}

const (
	maxOutput = 16 << 20 // of one git command
	maxStderr = 8 << 10
)

// errTooLarge says that a repository or an output exceeds its limit.
var errTooLarge = errors.New("size limit exceeded")

// settings are passed to every command; nothing else configures git.
var settings = []string{
	"core.hooksPath=/dev/null", "core.symlinks=false", "core.fsmonitor=false", "core.askPass=", "credential.helper=",
	"protocol.version=2", "http.followRedirects=false", "http.lowSpeedLimit=1000", "http.lowSpeedTime=20",
	"transfer.fsckObjects=true", "fetch.fsckObjects=true", "fetch.recurseSubmodules=false", "submodule.recurse=false",
	"gc.auto=0", "maintenance.auto=false", "advice.detachedHead=false",
}

// command runs git with stdin and returns its output. Cancelling ctx kills the whole process group.
func (g *Git) command(ctx context.Context, a address, extra []string, stdin []byte, args ...string) ([]byte, error) {
	argv := make([]string, 0, 2*len(settings)+len(args))
	for _, s := range append(slices.Clone(settings), extra...) {
		argv = append(argv, "-c", s)
	}
	cmd := exec.CommandContext(ctx, "git", append(argv, args...)...)
	cmd.Env, cmd.Dir, cmd.Stdin = g.environment(a), g.cfg.CacheDir, bytes.NewReader(stdin)
	stdout, stderr := &capped{limit: maxOutput, hard: true}, &capped{limit: maxStderr}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[slices.IndexFunc(args, plain)], err, lastLine(stderr.String()))
	}
	return stdout.Bytes(), nil
}

func plain(arg string) bool { return !strings.HasPrefix(arg, "-") }

// lastLine is what git said at the end, printable and short.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return shorten(strings.TrimSpace(lines[len(lines)-1]))
}

// environment is all that git sees: no HOME, no user or system configuration, one protocol.
func (g *Git) environment(a address) []string {
	ssh := "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o ClearAllForwardings=yes -o ConnectTimeout=10"
	if g.cfg.KnownHostsFile != "" {
		ssh += " -o UserKnownHostsFile=" + quote(g.cfg.KnownHostsFile)
	}
	if g.cfg.SSHKeyFile != "" {
		ssh += " -o IdentitiesOnly=yes -i " + quote(g.cfg.SSHKeyFile)
	}
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "GIT_PROTOCOL_FROM_USER=0",
		"GIT_ALLOW_PROTOCOL=" + string(a.transport),
		"GIT_SSH_COMMAND=" + ssh, "GIT_OPTIONAL_LOCKS=0", "GIT_NO_REPLACE_OBJECTS=1", "GIT_ATTR_NOSYSTEM=1",
	}
}

// quote protects a configured path from the shell that git starts ssh with.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// admit checks the host against the configuration and, without a list, its addresses. For https the addresses that
// were judged are pinned, so that a second answer of the name server changes nothing (G4).
func (g *Git) admit(ctx context.Context, a address) (extra []string, err error) {
	if a.transport == overFile || len(g.cfg.Hosts) > 0 {
		if a.host != "" && !slices.ContainsFunc(g.cfg.Hosts, func(h string) bool { return strings.EqualFold(h, a.host) }) {
			return nil, failure.New(failure.GitRefused, "host %q is not in git_hosts", a.host)
		}
		return nil, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", a.host)
	if err != nil {
		return nil, failure.New(failure.GitUnreachable, "host %q cannot be resolved", a.host)
	}
	for _, ip := range ips {
		if !public(ip) {
			return nil, failure.New(failure.GitRefused, "host %q has an address that is not public; name it in git_hosts",
				a.host)
		}
	}
	if a.transport != overHTTPS {
		return nil, nil
	}
	return []string{"http.curloptResolve=" + pin(a, ips)}, nil
}

func pin(a address, ips []netip.Addr) string {
	texts := make([]string, len(ips))
	for i, ip := range ips {
		texts[i] = ip.Unmap().String()
	}
	port := a.port
	if port == "" {
		port = "443"
	}
	return a.host + ":" + port + ":" + strings.Join(texts, ",")
}

// watchSize cancels with errTooLarge when dir outgrows limit, until ctx ends.
func watchSize(ctx context.Context, cancel context.CancelCauseFunc, dir string, limit int64) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if size(dir) > limit {
				cancel(errTooLarge)
				return
			}
		}
	}
}

// size is the sum of the files under dir; files that vanish meanwhile do not count.
func size(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// capped keeps the first limit bytes; a hard one fails beyond them.
type capped struct {
	bytes.Buffer
	limit int
	hard  bool
}

func (c *capped) Write(p []byte) (int, error) {
	room := c.limit - c.Len()
	if room >= len(p) {
		return c.Buffer.Write(p)
	}
	if c.hard {
		return 0, errTooLarge
	}
	c.Buffer.Write(p[:max(room, 0)])
	return len(p), nil
}

// ReadFrom keeps io.Copy from filling the buffer past its limit.
func (c *capped) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}
