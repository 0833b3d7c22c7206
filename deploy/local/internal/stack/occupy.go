package stack

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrInUse is of a directory that a trial occupies.
var ErrInUse = errors.New("is in use by a trial")

// Occupy keeps others from taking down what is in a directory, until the file is closed or this process ends. Another
// trial's directory is ErrInUse.
func Occupy(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("occupy %s: %w", dir, err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	_ = file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s %w", dir, ErrInUse)
	}
	return nil, fmt.Errorf("occupy %s: %w", dir, err)
}
