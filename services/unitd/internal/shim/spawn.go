package shim

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// identity is the user and the groups that the unit runs as.
type identity struct {
	credential  *syscall.Credential // nil: as unitd itself
	environment []string            // HOME, USER, LOGNAME where User= is set
	uid         uint32
}

// lookUp resolves User= and Group=, which may be names or numbers.
func lookUp(userName, groupName string) (identity, error) {
	if userName == "" && groupName == "" {
		return identity{uid: uint32(os.Getuid())}, nil
	}
	credential := &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	var environment []string
	if userName != "" {
		account, err := user.Lookup(userName)
		if err != nil {
			account, err = user.LookupId(userName)
		}
		if err != nil {
			return identity{}, fmt.Errorf("user %s is unknown", userName)
		}
		credential.Uid, credential.Gid = parseID(account.Uid), parseID(account.Gid)
		groups, _ := account.GroupIds() // none known: only the primary one
		for _, group := range groups {
			credential.Groups = append(credential.Groups, parseID(group))
		}
		environment = []string{"HOME=" + account.HomeDir, "USER=" + account.Username, "LOGNAME=" + account.Username}
	}
	if groupName != "" {
		group, err := user.LookupGroup(groupName)
		if err != nil {
			group, err = user.LookupGroupId(groupName)
		}
		if err != nil {
			return identity{}, fmt.Errorf("group %s is unknown", groupName)
		}
		credential.Gid = parseID(group.Gid)
	}
	if int(credential.Uid) == os.Getuid() && int(credential.Gid) == os.Getgid() {
		credential = nil // setgroups would need privileges that are not called for
	}
	id := identity{credential: credential, environment: environment, uid: uint32(os.Getuid())}
	if credential != nil {
		id.uid = credential.Uid
	}
	return id, nil
}

func parseID(text string) uint32 {
	n, _ := strconv.ParseUint(text, 10, 32)
	return uint32(n)
}

// environment is that of the unit's processes. Of unitd's own environment they get nothing.
func (r *runner) environment() ([]string, error) {
	s := r.activation.Service
	layers := [][]string{
		{"PATH=" + service.DefaultPath, "INVOCATION_ID=" + r.activation.Invocation},
		r.identity.environment,
		s.Environment,
	}
	for _, file := range s.EnvironmentFiles {
		text, err := os.ReadFile(file.Path)
		if os.IsNotExist(err) && file.Optional {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("EnvironmentFile: %w", err)
		}
		layers = append(layers, service.ParseEnvironment(string(text)))
	}
	last := []string{"INVOCATION_ID=" + r.activation.Invocation}
	if r.notifyName != "" {
		last = append(last, "NOTIFY_SOCKET="+r.notifyName)
	}
	if r.status.MainPID != 0 {
		last = append(last, "MAINPID="+strconv.Itoa(r.status.MainPID))
	}
	var list []string
	for key, value := range service.Merge(append(layers, last)...) {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

// spawnCommand starts one command of the unit in a process group of its own.
func (r *runner) spawnCommand(command unit.Command) (int, error) {
	s := r.activation.Service
	environment, err := r.environment()
	if err != nil {
		return 0, err
	}
	argv, err := command.Argv(s.Specifiers, service.Merge(environment))
	if err != nil {
		return 0, err
	}
	program, err := findProgram(argv[0], service.Merge(environment)["PATH"])
	if err != nil {
		return 0, err
	}
	dir, err := r.workingDirectory()
	if err != nil {
		return 0, err
	}
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if !command.Privileged {
		attributes.Credential = r.identity.credential
	}
	if s.KillMode != service.KillNone {
		attributes.Pdeathsig = syscall.SIGKILL // the shim and its unit die together; the caller's thread is locked
	}
	pid, err := syscall.ForkExec(program, argv, &syscall.ProcAttr{
		Dir: dir, Env: environment, Sys: attributes,
		Files: []uintptr{r.null.Fd(), r.pipe.Fd(), r.pipe.Fd()},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", program, err)
	}
	r.childless = false
	r.exits[pid] = nil
	return pid, nil
}

func (r *runner) workingDirectory() (string, error) {
	s := r.activation.Service
	dir := s.WorkingDirectory
	switch dir {
	case "":
		return "/", nil
	case "~":
		dir = service.Merge(r.identity.environment)["HOME"]
	}
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return dir, nil
	case s.DirectoryOptional:
		return "/", nil
	}
	return "", fmt.Errorf("working directory %s does not exist", dir)
}

// findProgram searches a name without slash in the unit's own PATH.
func findProgram(name, path string) (string, error) {
	if strings.ContainsRune(name, '/') {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("program %s is not in PATH", name)
}
