package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
)

// program is the real binary, built with the race detector.
var program string

func TestUnitd(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Unitd Suite")
}

var _ = SynchronizedBeforeSuite(func() []byte {
	if path := os.Getenv("UNITD_SPEC_PROGRAM"); path != "" { // where there is no compiler
		return []byte(path)
	}
	path, err := gexec.Build("github.com/openaperture/openaperture/services/unitd", "-race")
	Expect(err).NotTo(HaveOccurred())
	return []byte(path)
}, func(path []byte) { program = string(path) })

var _ = SynchronizedAfterSuite(func() {}, gexec.CleanupBuildArtifacts)

// TestMain lets the test binary itself be a service of Type=notify.
func TestMain(m *testing.M) {
	if gate := os.Getenv("UNITD_SPEC_GATE"); gate != "" {
		os.Exit(notifyingService(gate))
	}
	switch role := os.Getenv("UNITD_SPEC_ROLE"); role {
	case "":
	case "starter":
		os.Exit(startAndHandOver())
	case "barriers":
		os.Exit(sendBarriers())
	default:
		os.Exit(endOnSignal())
	}
	os.Exit(m.Run())
}

// notifyingService is ready when the gate, a fifo, has been written to, and ends on SIGTERM.
func notifyingService(gate string) int {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	fifo, err := os.Open(gate) // blocks until there is a writer
	if err != nil {
		return 1
	}
	if _, err := io.ReadAll(fifo); err != nil {
		return 1
	}
	if _, err := daemon.SdNotify(false, "STATUS=open for business\nREADY=1"); err != nil {
		return 1
	}
	<-ended
	return 0
}

// startAndHandOver starts a process, names it the main process, and ends.
func startAndHandOver() int {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "UNITD_SPEC_ROLE=main")
	if err := child.Start(); err != nil {
		return 1
	}
	if _, err := daemon.SdNotify(false, fmt.Sprintf("READY=1\nMAINPID=%d", child.Process.Pid)); err != nil {
		return 1
	}
	return 0
}

// sendBarriers sends barriers, as systemd-notify does, and becomes ready. A barrier has the writing end of a pipe.
// Closing this end answers the barrier. The status tells of the outcome.
func sendBarriers() int {
	outcome := "every barrier was answered"
	for range 20 {
		if err := sendBarrier(os.Getenv("NOTIFY_SOCKET")); err != nil {
			outcome = err.Error()
		}
	}
	if _, err := daemon.SdNotify(false, "READY=1\nSTATUS="+outcome); err != nil {
		return 1
	}
	return endOnSignal()
}

func endOnSignal() int {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
	return 0
}

func sendBarrier(socket string) error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	_, _, err = conn.WriteMsgUnix([]byte("BARRIER=1"), syscall.UnixRights(int(writer.Fd())),
		&net.UnixAddr{Name: socket, Net: "unixgram"})
	if err := errors.Join(err, writer.Close(), reader.SetReadDeadline(time.Now().Add(5*time.Second))); err != nil {
		return err
	}
	_, err = reader.Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("the barrier was not answered: %w", err)
	}
	return nil
}
