package roll_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestRoll(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "roll")
}
