package blame_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestBlame(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "blame")
}
