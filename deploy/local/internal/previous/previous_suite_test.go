package previous_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestPrevious(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "previous")
}
