package contain_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestContain(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Contain Suite")
}
