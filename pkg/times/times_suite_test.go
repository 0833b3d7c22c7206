package times_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestTimes(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "times")
}
