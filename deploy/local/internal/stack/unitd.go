package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/pkg/fault"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// launched is the desired state of a unit that runs.
const launched = "launched"

var client = &http.Client{Timeout: 10 * time.Second}

// startUnitd starts unitd unless it answers. It runs on when we end, and its units run on when it ends.
func (s *Stack) startUnitd(ctx context.Context) error {
	if s.ready(ctx, s.UnitdURL()) {
		return nil
	}
	if err := s.compile(ctx, s.path("bin")+"/", "local", []string{module + "services/unitd"}); err != nil {
		return err
	}
	if _, err := s.secret("unitd_token"); err != nil { // makes it: who may put a unit may run anything
		return err
	}
	config := fmt.Sprintf("listen: %s\nstate_dir: %s\ntoken_file: %s\nmachine_metadata: {role: local}\n",
		s.unitdAddress(), s.path("unitd"), s.path("secrets", "unitd_token"))
	if err := s.config("unitd", config); err != nil {
		return err
	}
	ended, err := s.spawn(ctx, "unitd", "--config", s.path("config", "unitd.yaml"))
	if err != nil {
		return err
	}
	return s.until(ctx, 20*time.Second, "unitd is ready", func() (string, bool) {
		return ended(), s.ready(ctx, s.UnitdURL())
	})
}

// spawn starts a program of the stack's own, which runs on when we end. The function that it returns says whether the
// program has ended, and where its log is.
func (s *Stack) spawn(ctx context.Context, name string, args ...string) (func() string, error) {
	log, err := os.OpenFile(s.path("log", name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.path("bin", name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "LANG=C.UTF-8"} // units inherit nothing of ours
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := os.WriteFile(s.path(name+".pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return nil, fmt.Errorf("remember the process of %s: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // also reaps it, if it ends before we do
	return func() string {
		select {
		case err := <-ended:
			ended <- err
			return fmt.Sprintf("it ended (%v); see %s", err, log.Name())
		default:
			return "see " + log.Name()
		}
	}, nil
}

// stopUnits stops unitd and then every unit that it ran.
func (s *Stack) stopUnits(ctx context.Context) error {
	if _, err := os.Stat(s.path("unitd.pid")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if pid, runs := s.pidOf("unitd"); runs {
		_ = syscall.Kill(pid, syscall.SIGTERM) // gone meanwhile: fine; stop-all waits for its end
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.path("bin", "unitd"), "--config", s.path("config", "unitd.yaml"), "stop-all",
		"forget")
	cmd.Dir = s.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("stop the units: %w: %s", err, lastLine(string(out)))
	}
	return nil
}

// pidOf is the process of a program of the stack's own, if it runs. The number may have been given to somebody else.
func (s *Stack) pidOf(name string) (int, bool) {
	text, err := os.ReadFile(s.path(name + ".pid"))
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return pid, err == nil && strings.TrimSuffix(exe, " (deleted)") == s.path("bin", name)
}

// Put gives unitd a unit to launch.
func (s *Stack) Put(ctx context.Context, name string, options []messages.Option) error {
	return s.change(ctx, name, map[string]any{"desiredState": launched, "options": options})
}

// Hold stops a unit and keeps it stopped, until Launch.
func (s *Stack) Hold(ctx context.Context, name string) error {
	return s.change(ctx, name, map[string]any{"desiredState": "loaded"})
}

// Launch runs a unit that unitd has.
func (s *Stack) Launch(ctx context.Context, name string) error {
	return s.change(ctx, name, map[string]any{"desiredState": launched})
}

func (s *Stack) change(ctx context.Context, name string, request map[string]any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("put unit %s: %w", name, err)
	}
	return s.fleet(ctx, http.MethodPut, unitPath(name), body, nil)
}

// ensureLaunched runs a unit that unitd has, in the definition that it has, and tells whether it has it. The states are
// no answer: after a reboot unitd lists one only when it has looked for the unit's process.
func (s *Stack) ensureLaunched(ctx context.Context, name string) (bool, error) {
	var found struct {
		DesiredState string `json:"desiredState"`
	}
	err := s.fleet(ctx, http.MethodGet, unitPath(name), nil, &found)
	switch {
	case fault.Is(err, fault.NotFound):
		return false, nil
	case err != nil || found.DesiredState == launched:
		return true, err
	default: // an interrupted Down has set it inactive
		return true, s.Launch(ctx, name)
	}
}

// Unit is what unitd holds of a unit, its definition and states, as it says it.
func (s *Stack) Unit(ctx context.Context, name string) (string, error) {
	var said json.RawMessage
	err := s.fleet(ctx, http.MethodGet, unitPath(name), nil, &said)
	return string(said), err
}

// Remove stops a unit and has unitd forget it.
func (s *Stack) Remove(ctx context.Context, name string) error {
	return s.fleet(ctx, http.MethodDelete, unitPath(name), nil, nil)
}

func unitPath(name string) string { return "units/" + url.PathEscape(name) }

// states are the active states by unit.
func (s *Stack) states(ctx context.Context) (map[string]string, error) {
	var answer struct {
		States []struct {
			Name   string `json:"name"`
			Active string `json:"systemdActiveState"`
		} `json:"states"`
	}
	if err := s.fleet(ctx, http.MethodGet, "state", nil, &answer); err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, u := range answer.States {
		states[u.Name] = u.Active
	}
	return states, nil
}

func (s *Stack) fleet(ctx context.Context, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.UnitdURL()+"/fleet/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask unitd: %w", err)
	}
	token, err := s.secret("unitd_token")
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask unitd: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("read unitd's answer: %w", err)
	}
	if res.StatusCode == http.StatusNotFound {
		return fault.New(fault.NotFound, "unitd has no %s", path)
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s of unitd: %d %s", method, path, res.StatusCode, strings.TrimSpace(string(text)))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read unitd's answer: %w", err)
	}
	return nil
}

// ready asks /readyz.
func (s *Stack) ready(ctx context.Context, base string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// until asks five times a second. An end that comes too late says what it was waiting for and what was seen last.
func (s *Stack) until(ctx context.Context, limit time.Duration, what string, ask func() (string, bool)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		seen, ok := ask()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w: %s", what, ctx.Err(), seen)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
