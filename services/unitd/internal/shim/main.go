package shim

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// Descriptors that Start passes to the shim.
const (
	lockDescriptor    = 3
	controlDescriptor = 4
)

const (
	prSetChildSubreaper = 36
	drainLimit          = 200 * time.Millisecond
)

// Main is the process `unitd shim <dir>`. It returns the exit code.
func Main(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "unitd shim: is started by unitd itself")
		return 2
	}
	if err := runShim(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, "unitd shim:", err)
		return 1
	}
	return 0
}

func runShim(dir string) error {
	runtime.LockOSThread()
	syscall.CloseOnExec(lockDescriptor)
	syscall.CloseOnExec(controlDescriptor)
	syscall.Umask(0o022)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("become subreaper: %w", errno)
	}
	r, err := prepareRunner(dir)
	if err != nil {
		return err
	}
	stops := make(chan struct{}, 8)
	r.stops = stops
	r.control = &controller{stop: stops, conns: map[net.Conn]bool{}}
	if err := r.connect(stops); err != nil {
		return err
	}
	if err := r.openLog(); err != nil {
		return err
	}
	r.run()
	return nil
}

// prepareRunner reads the order and the shim's own identity.
func prepareRunner(dir string) (*runner, error) {
	r := &runner{dir: dir, exits: map[int]*syscall.WaitStatus{}, left: make(chan int), childless: true}
	if err := readJSON(filepath.Join(dir, activationFile), &r.activation); err != nil {
		return nil, fmt.Errorf("read activation: %w", err)
	}
	self, ok := readProcess(os.Getpid())
	if !ok {
		return nil, fmt.Errorf("read own process: no /proc")
	}
	r.status = Status{Invocation: r.activation.Invocation, ShimPID: self.pid, ShimStart: self.start}
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	r.null = null
	return r, os.Chdir("/")
}

// connect opens everything through which the world reaches the shim. Signals
// are caught, not ignored: an ignored one would stay ignored in the unit.
func (r *runner) connect(stops chan<- struct{}) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	r.children = children
	others := make(chan os.Signal, 1)
	signal.Notify(others, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	go func() { // for the life of the process
		for s := range others {
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				stops <- struct{}{}
			}
		}
	}()
	listener, err := listenControl(r.dir)
	if err != nil {
		return err
	}
	go r.control.acceptConnections(listener) // for the life of the process
	inherited := os.NewFile(controlDescriptor, "control")
	conn, err := net.FileConn(inherited)
	if err != nil {
		return fmt.Errorf("use control connection: %w", err)
	}
	_ = inherited.Close()
	r.control.addConnection(conn)
	if r.activation.Service.Type != service.Notify {
		return nil
	}
	notify, name, err := listenNotify(r.activation.Invocation)
	if err != nil {
		return err
	}
	r.notifyName = name
	r.notifications = make(chan notification, 16)
	go readNotifications(notify, r.notifications) // for the life of the process
	return nil
}

// openLog makes the pipe that is the unit's stdout and stderr, and copies its
// output into the log. A unit of KillMode=process or none writes into the log
// file itself. Its surviving processes would be killed by a pipe without reader.
func (r *runner) openLog() error {
	survivors := slices.Contains([]service.KillMode{service.KillProcess, service.KillNone}, r.activation.Service.KillMode)
	out, err := openOutput(r.activation.LogDir, survivors)
	if err != nil {
		return err
	}
	drained := make(chan struct{})
	r.out, r.drained = out, drained
	if survivors {
		close(drained)
		go out.keepShort() // for the life of the process
		r.pipe, err = openLogFile(r.activation.LogDir)
		return err
	}
	var pipe [2]int // not os.Pipe, whose ends are non-blocking: the unit's stdout must not be
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return fmt.Errorf("make output pipe: %w", err)
	}
	reader := os.NewFile(uintptr(pipe[0]), "output")
	r.pipe = os.NewFile(uintptr(pipe[1]), "output")
	go func() {
		defer close(drained)
		_, _ = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{reader}, make([]byte, 32<<10))
	}()
	return nil
}
