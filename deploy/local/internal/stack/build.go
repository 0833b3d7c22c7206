package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// module is the prefix of all our packages.
const module = "github.com/openaperture/openaperture/"

// Mode is what is wrong with a broken release.
type Mode string

// The modes of deploy/local/broken.
const (
	NeverReady Mode = "never-ready" // runs and does not become ready; manager-api's migrates before
	CrashLoop  Mode = "crash-loop"  // ends as soon as it is started
	Deaf       Mode = "deaf"        // ready, beats the right version, and does nothing
	Forgetful  Mode = "forgetful"   // the real service, that loses every result: for manager-api alone
)

// Modes lists those that every service can be broken by.
var Modes = []Mode{NeverReady, CrashLoop, Deaf}

// Build makes a release of OpenAperture's services out of the workspace, stamped with ref, and its tag in the source
// repository. A release that is there already is kept: a ref means one thing.
func (s *Stack) Build(ctx context.Context, ref string) error {
	packages := []string{}
	for _, v := range Own {
		packages = append(packages, module+"services/"+v.Name)
	}
	if err := s.build(ctx, ref, packages); err != nil {
		return err
	}
	return tag(ctx, s.place(s.SourceRepo(Own[0])), ref)
}

// BuildHello makes a release of the service that is no part of OpenAperture.
func (s *Stack) BuildHello(ctx context.Context, ref string) error {
	if err := s.repositories(ctx, []Service{Hello}); err != nil {
		return err
	}
	if err := s.build(ctx, ref, []string{module + "deploy/local/hello"}); err != nil {
		return err
	}
	return tag(ctx, s.place(s.SourceRepo(Hello)), ref)
}

// BuildBroken makes a release in which one service is broken. The other service of its component, if it has one, is as
// good as ever.
func (s *Stack) BuildBroken(ctx context.Context, ref string, broken Service, mode Mode) error {
	for _, v := range Own {
		if v.Type == broken.Type && v.Name != broken.Name {
			if err := s.build(ctx, ref, []string{module + "services/" + v.Name}); err != nil {
				return err
			}
		}
	}
	return s.breakOne(ctx, ref, broken, mode)
}

// BuildRelease makes a release of all services, of which one may be broken.
func (s *Stack) BuildRelease(ctx context.Context, ref string, broken *Service, mode Mode) error {
	if broken == nil {
		return s.Build(ctx, ref)
	}
	packages := []string{}
	for _, v := range Own {
		if v.Name != broken.Name {
			packages = append(packages, module+"services/"+v.Name)
		}
	}
	if err := s.build(ctx, ref, packages); err != nil {
		return err
	}
	return s.breakOne(ctx, ref, *broken, mode)
}

// breakOne adds a broken service to a release.
func (s *Stack) breakOne(ctx context.Context, ref string, broken Service, mode Mode) error {
	if err := s.build(ctx, ref, []string{module + "deploy/local/broken"}, "-X main.mode="+string(mode)); err != nil {
		return err
	}
	if mode == Forgetful {
		real := filepath.Join(s.Releases(), ref, "real") + "/"
		if err := s.compile(ctx, real, ref, []string{module + "services/" + broken.Name}); err != nil {
			return err
		}
	}
	err := os.Link(filepath.Join(s.Releases(), ref, "broken"), filepath.Join(s.Releases(), ref, broken.Name))
	if err != nil && !os.IsExist(err) {
		return fmt.Errorf("name broken service %s: %w", broken.Name, err)
	}
	return tag(ctx, s.place(s.SourceRepo(broken)), ref)
}

// RemoveReleases removes the releases that old picks. Their tags stay.
func (s *Stack) RemoveReleases(old func(ref string) bool) error {
	entries, err := os.ReadDir(s.Releases())
	if err != nil {
		return fmt.Errorf("list the releases: %w", err)
	}
	for _, e := range entries {
		if old(e.Name()) {
			if err := os.RemoveAll(filepath.Join(s.Releases(), e.Name())); err != nil {
				return fmt.Errorf("remove release %s: %w", e.Name(), err)
			}
		}
	}
	return nil
}

// build compiles into a directory beside and renames each binary, so that none is ever half there.
func (s *Stack) build(ctx context.Context, ref string, packages []string, ldflags ...string) error {
	missing := []string{}
	for _, p := range packages {
		if _, err := os.Stat(filepath.Join(s.Releases(), ref, filepath.Base(p))); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fresh, err := os.MkdirTemp(s.Dir, "build-")
	if err != nil {
		return fmt.Errorf("make release %s: %w", ref, err)
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	if err := s.compile(ctx, fresh+"/", ref, missing, ldflags...); err != nil {
		return err
	}
	target := filepath.Join(s.Releases(), ref)
	if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // binaries, for whoever runs them
		return fmt.Errorf("make release %s: %w", ref, err)
	}
	for _, p := range missing {
		name := filepath.Base(p)
		if err := os.Rename(filepath.Join(fresh, name), filepath.Join(target, name)); err != nil {
			return fmt.Errorf("make release %s: %w", ref, err)
		}
	}
	return nil
}

func (s *Stack) compile(ctx context.Context, out, version string, packages []string, ldflags ...string) error {
	flags := append([]string{"-s", "-w", "-X main.version=" + version}, ldflags...)
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags",
		strings.Join(flags, " "), "-o", out}, packages...)...)
	cmd.Dir = s.Root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK="+filepath.Join(s.Root, "go.work"))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", version, err, strings.TrimSpace(string(text)))
	}
	return nil
}

var numbered = regexp.MustCompile(`^v(\d+)$`)

// HighestRelease is the highest number of a release vN, 0 without any.
func (s *Stack) HighestRelease() (int, error) {
	entries, err := os.ReadDir(s.Releases())
	if err != nil {
		return 0, fmt.Errorf("list the releases: %w", err)
	}
	highest := 0
	for _, e := range entries {
		if m := numbered.FindStringSubmatch(e.Name()); m != nil {
			n, _ := strconv.Atoi(m[1]) // digits only
			highest = max(highest, n)
		}
	}
	return highest, nil
}
