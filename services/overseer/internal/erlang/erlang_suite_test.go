package erlang_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestErlang(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "erlang")
}
