package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq" // the driver

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
)

// Postgres is a private PostgreSQL server whose data may be lost: it never syncs to disk.
type Postgres struct {
	Throwaway bool   `json:"throwaway,omitempty"` // for suites: a crash of the machine may lose it
	Dir       string `json:"dir"`                 // holds the data; must not exist before the first start
	Port      int    `json:"port"`
	Password  string `json:"-"` // of the superuser postgres; kept in a file of the caller's
}

// PostgresDir chooses where the data goes: below base, unless we are root and base can not be entered by the server's
// own user, who then gets a fresh directory under /var/tmp. The caller remembers and removes it.
func PostgresDir(base string) (string, error) {
	if os.Geteuid() != 0 || reachable(base) {
		return filepath.Join(base, "postgres"), nil
	}
	dir, err := os.MkdirTemp("/var/tmp", "openaperture-postgres-")
	if err != nil {
		return "", fmt.Errorf("make a directory for PostgreSQL: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the data directory inside is 0700
		return "", fmt.Errorf("open the directory of PostgreSQL: %w", err)
	}
	return filepath.Join(dir, "postgres"), nil
}

// reachable reports whether everybody may pass through dir and all its parents.
func reachable(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// URL is the connection URL of a database; it contains the password.
func (p Postgres) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", p.Password),
		Host: "127.0.0.1:" + strconv.Itoa(p.Port), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Start makes the data directory if it is missing, starts the server if it does not run and waits until it answers.
func (p Postgres) Start(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(p.Dir, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		if err := p.initialize(ctx); err != nil {
			return err
		}
	}
	if p.running() {
		return nil
	}
	// A file that a killed server left would keep the next one from starting while the number is another process's.
	if err := os.Remove(p.pidFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	options := fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300",
		p.Port)
	if p.Throwaway {
		options += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
	}
	return p.tool(ctx, "start PostgreSQL", "pg_ctl", "-D", p.Dir, "-w", "-t", "60", "-s",
		"-l", filepath.Join(p.Dir, "server.log"), "-o", options, "start")
}

// Stop stops the server if it runs. The data stays.
func (p Postgres) Stop(ctx context.Context) error {
	if !p.running() {
		return nil
	}
	return p.tool(ctx, "stop PostgreSQL", "pg_ctl", "-D", p.Dir, "-w", "-t", "30", "-s", "-m", "fast", "stop")
}

// Follow makes the data directory as a copy of a running server's. Start then starts a standby of that server.
func (p Postgres) Follow(ctx context.Context, primary Postgres) error {
	if _, err := p.makeDir(); err != nil {
		return err
	}
	return p.tool(ctx, "copy PostgreSQL", "pg_basebackup", "-d", primary.URL("postgres"), "-D", p.Dir, "-R",
		"-X", "stream", "-c", "fast", "--no-sync")
}

// Promote makes a standby the primary. Connections to the server stay.
func (p Postgres) Promote(ctx context.Context) error {
	return p.tool(ctx, "promote PostgreSQL", "pg_ctl", "-D", p.Dir, "-w", "-t", "30", "-s", "promote")
}

// Crash ends the server as a host does that loses its power.
func (p Postgres) Crash(ctx context.Context) error {
	return p.tool(ctx, "crash PostgreSQL", "pg_ctl", "-D", p.Dir, "-w", "-t", "30", "-s", "-m", "immediate", "stop")
}

// CreateDatabase makes a database unless it exists.
func (p Postgres) CreateDatabase(ctx context.Context, name string) error {
	db, err := sqlx.ConnectContext(ctx, "postgres", p.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = db.Close() }()
	var found bool
	if err := db.GetContext(ctx, &found, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name); err != nil {
		return fmt.Errorf("look for database %s: %w", name, err)
	}
	if found {
		return nil
	}
	if _, err := db.ExecContext(ctx, `CREATE DATABASE `+name); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

func (p Postgres) pidFile() string { return filepath.Join(p.Dir, "postmaster.pid") }

// running asks /proc, because a killed server's number may be that of a zombie, or of somebody else by now.
func (p Postgres) running() bool {
	text, err := os.ReadFile(p.pidFile())
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return false
	}
	working, err := proc.WorkingIn(p.Dir) // as a server does in its data; the host's own may have the number
	return err == nil && filepath.Base(working[pid]) == "postgres"
}

// initialize makes the data directory. The password reaches initdb in a file, never in its arguments.
func (p Postgres) initialize(ctx context.Context) error {
	owner, err := p.makeDir()
	if err != nil {
		return err
	}
	secret := p.Dir + ".pw"
	if err := os.WriteFile(secret, []byte(p.Password+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the password of PostgreSQL: %w", err)
	}
	defer func() { _ = os.Remove(secret) }()
	if err := handOver(secret, owner); err != nil {
		return err
	}
	return p.tool(ctx, "initialize PostgreSQL", "initdb", "-D", p.Dir, "-U", "postgres",
		"-A", "scram-sha-256", "--pwfile", secret,
		"-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
}

// makeDir makes the data directory, which belongs to the server's user.
func (p Postgres) makeDir() (owner *syscall.Credential, err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of PostgreSQL: %w", err)
	}
	if owner, err = serverUser(); err != nil {
		return nil, err
	}
	return owner, handOver(p.Dir, owner)
}

func handOver(path string, owner *syscall.Credential) error {
	if owner == nil {
		return nil
	}
	if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
		return fmt.Errorf("hand over to the user of PostgreSQL: %w", err)
	}
	return nil
}

// tool runs one of PostgreSQL's programs as the server's user. Output goes to a file, not a pipe: the server inherits
// it, and a pipe would be waited for as long as the server lives.
func (p Postgres) tool(ctx context.Context, doing, name string, args ...string) error {
	bin, err := postgresTool(name)
	if err != nil {
		return err
	}
	owner, err := serverUser()
	if err != nil {
		return err
	}
	out, err := os.CreateTemp("", "openaperture-tool-")
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { _ = out.Close(); _ = os.Remove(out.Name()) }()
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PGOPTIONS=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: owner}
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w: %s", doing, err, strings.TrimSpace(string(text)))
	}
	return nil
}

func postgresTool(name string) (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is well-formed
	if len(found) == 0 {
		return "", fmt.Errorf("%s is not installed: run deploy/local/install.sh", name)
	}
	return found[len(found)-1], nil
}

// serverUser is whom the server runs as: the package's user if we are root, which PostgreSQL refuses; else ourselves.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("find the user of PostgreSQL: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read the user of PostgreSQL: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read the group of PostgreSQL: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
