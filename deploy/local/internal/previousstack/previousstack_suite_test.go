package previousstack_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestPreviousStack(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "previousstack")
}
