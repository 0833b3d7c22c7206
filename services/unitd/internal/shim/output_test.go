package shim_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/services/unitd/internal/shim"
)

var _ = Describe("A log that its unit writes itself", func() {
	It("is read to its end while it is emptied", func() {
		dir := GinkgoT().TempDir()
		log, err := shim.SharedLog(dir)
		Expect(err).NotTo(HaveOccurred())
		much := []byte(strings.Repeat("much\n", 1<<20)) // more than a full file
		for round := range 12 {
			_, _ = log.Write(much)
			_, _ = fmt.Fprintln(log, "round", round)
			emptied := make(chan struct{})
			var readers sync.WaitGroup
			for range 4 {
				readers.Go(func() {
					defer GinkgoRecover()
					for done := false; !done; {
						select {
						case <-emptied:
							done = true
						default:
						}
						text, err := shim.Tail(dir, 1<<20, 256<<10)
						Expect(err).NotTo(HaveOccurred())
						Expect(strings.HasSuffix(text, fmt.Sprintf("much\nround %d\n", round))).To(BeTrue())
						Expect(len(text)).To(BeNumerically(">", 255<<10))
					}
				})
			}
			log.RotateShared()
			close(emptied)
			readers.Wait()
		}
	})
})

var _ = Describe("A log", func() {
	It("has the mark of a start on a line of its own, although the shim before was killed in mid-line", func() {
		dir := GinkgoT().TempDir()
		before, err := shim.PipedLog(dir)
		Expect(err).NotTo(HaveOccurred())
		before.MarkStart("x.service")
		_, _ = before.Write([]byte("not finish"))
		after, err := shim.PipedLog(dir)
		Expect(err).NotTo(HaveOccurred())
		after.MarkStart("x.service")
		Expect(shim.Tail(dir, 10, 1000)).
			To(Equal("unitd: starting x.service\nnot finish\nunitd: starting x.service\n"))
	})
})

var _ = Describe("A log whose rotation fails", func() {
	var (
		dir               string
		current, previous string
	)
	BeforeEach(func() {
		dir = filepath.Join(GinkgoT().TempDir(), "log")
		current, previous = filepath.Join(dir, "current.log"), filepath.Join(dir, "previous.log")
	})
	full := bytes.Repeat([]byte("much\n"), shim.MaxLog/5+1)
	size := func(file string) int64 {
		GinkgoHelper()
		info, err := os.Stat(file)
		Expect(err).NotTo(HaveOccurred())
		return info.Size()
	}
	tail := func() string {
		GinkgoHelper()
		text, err := shim.Tail(dir, 10, 1<<20)
		Expect(err).NotTo(HaveOccurred())
		return text
	}

	// Every obstacle returns the function that removes it.
	directoryInTheWay := func() func() {
		GinkgoHelper()
		Expect(os.MkdirAll(previous, 0o700)).To(Succeed())
		return func() { Expect(os.Remove(previous)).To(Succeed()) }
	}
	noDirectory := func() func() {
		GinkgoHelper()
		Expect(os.Rename(dir, dir+".away")).To(Succeed())
		Expect(os.WriteFile(dir, nil, 0o600)).To(Succeed())
		return func() {
			Expect(os.Remove(dir)).To(Succeed())
			Expect(os.Rename(dir+".away", dir)).To(Succeed())
		}
	}
	noInodes := func() func() {
		GinkgoHelper()
		var fillers []string
		for {
			filler := filepath.Join(dir, fmt.Sprintf("filler%d", len(fillers)))
			if err := os.WriteFile(filler, nil, 0o600); err != nil {
				Expect(err).To(MatchError(syscall.ENOSPC))
				break
			}
			fillers = append(fillers, filler)
		}
		return func() {
			for _, filler := range fillers {
				Expect(os.Remove(filler)).To(Succeed())
			}
		}
	}
	// smallDisk mounts a file system with room for bytes and files, until the spec ends.
	smallDisk := func(size, files int) {
		GinkgoHelper()
		if os.Getuid() != 0 {
			Skip("only root may mount a file system")
		}
		Expect(os.MkdirAll(dir, 0o700)).To(Succeed())
		Expect(syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d", size, files))).To(Succeed())
		DeferCleanup(func() { Expect(syscall.Unmount(dir, syscall.MNT_DETACH)).To(Succeed()) })
	}

	DescribeTable("goes on in the file that it has, within its bounds, and is rotated later",
		func(obstacle func() func(), prepare func()) {
			if prepare != nil {
				prepare()
			}
			log, err := shim.PipedLog(dir)
			Expect(err).NotTo(HaveOccurred())
			file, err := os.Open(current) // the obstacle may hide its name
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(file.Close)
			_, _ = log.Write(full)
			remove := obstacle()
			for round := range 40 { // 8 MiB more, so that the file has twice its size and is emptied
				_, _ = log.Write(full[:len(full)/20])
				_, _ = fmt.Fprintln(log, "meanwhile", round)
				info, err := file.Stat()
				Expect(err).NotTo(HaveOccurred())
				Expect(info.Size()).To(BeNumerically("<=", 2*shim.MaxLog+len(full)/20+200))
			}
			remove()
			Expect(tail()).To(HaveSuffix("much\nmeanwhile 39\n"))
			for round := range 40 {
				_, _ = log.Write(full[:len(full)/20])
				_, _ = fmt.Fprintln(log, "afterwards", round)
			}
			Expect(tail()).To(HaveSuffix("much\nafterwards 39\n"))
			Expect(size(current)).To(BeNumerically("<=", shim.MaxLog+len(full)/20))
			Expect(size(previous)).To(BeNumerically(">=", shim.MaxLog))
			text, err := os.ReadFile(previous)
			Expect(err).NotTo(HaveOccurred())
			Expect(string(text)).To(ContainSubstring("afterwards"))
		},
		Entry("a directory has the previous file's name", directoryInTheWay, nil),
		Entry("the log's directory is hidden by a file", noDirectory, nil),
		Entry("the file system has no place for another file", noInodes, func() { smallDisk(64<<20, 5) }),
	)

	It("says why, once, at the place where it happened", func() {
		log, err := shim.PipedLog(dir)
		Expect(err).NotTo(HaveOccurred())
		_, _ = log.Write(full)
		directoryInTheWay()
		for round := range 10 {
			_, _ = log.Write(full[:len(full)/20])
			_, _ = fmt.Fprintln(log, "meanwhile", round)
		}
		text, err := os.ReadFile(current)
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.Count(string(text), "unitd: the log cannot be rotated and goes on in the same file: ")).To(Equal(1))
	})

	It("is read although the previous file cannot be", func() {
		log, err := shim.PipedLog(dir)
		Expect(err).NotTo(HaveOccurred())
		_, _ = fmt.Fprintln(log, "a line")
		directoryInTheWay()
		Expect(tail()).To(And(HavePrefix("unitd: the earlier part of this log is missing: "), HaveSuffix("\na line\n")))
	})

	It("on a full disk goes on when there is room again, and says how much is missing", func() {
		smallDisk(1<<20, 5)
		log, err := shim.PipedLog(dir)
		Expect(err).NotTo(HaveOccurred())
		filler := filepath.Join(dir, "filler")
		Expect(os.WriteFile(filler, make([]byte, 2<<20), 0o600)).To(MatchError(syscall.ENOSPC))
		_, _ = fmt.Fprintln(log, "nobody reads this")
		Expect(os.Remove(filler)).To(Succeed())
		_, _ = fmt.Fprintln(log, "and this is read")
		Expect(tail()).To(Equal("unitd: 18 bytes of output are missing here\nand this is read\n"))
	})

	It("keeps its end if its unit writes it, until it has twice its size", func() {
		log, err := shim.SharedLog(dir)
		Expect(err).NotTo(HaveOccurred())
		remove := directoryInTheWay()
		_, _ = log.Write(full)
		_, _ = fmt.Fprintln(log, "still here")
		log.RotateShared()
		Expect(tail()).To(ContainSubstring("much\nstill here\nunitd: the log cannot be rotated"))
		_, _ = log.Write(full)
		log.RotateShared()
		Expect(size(current)).To(BeZero())
		remove()
		_, _ = log.Write(full)
		_, _ = fmt.Fprintln(log, "rotated")
		log.RotateShared()
		Expect(size(current)).To(BeZero())
		Expect(tail()).To(HaveSuffix("much\nrotated\n"))
	})
})
