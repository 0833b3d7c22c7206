package eligibility_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestEligibility(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "eligibility")
}
