package deploy_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy"
)

var _ = DescribeTable("A log without its secrets",
	func(text, want string) { Expect(deploy.Scrub(text)).To(Equal(want)) },
	Entry("a password", "password=hunter2 and on", "password=… and on"),
	Entry("quoted", `{"password": "hunter2", "n": 1}`, `{"password": "…", "n": 1}`),
	Entry("a flag", "run --token abc --debug", "run --token … --debug"),
	Entry("a bearer", "Authorization: Bearer abc.def", "Authorization: Bearer …"),
	Entry("more after the keyword", "AWS_SECRET_ACCESS_KEY=abc/d+e=", "AWS_SECRET_ACCESS_KEY=…"),
	Entry("more after the keyword, in YAML", "secret_key: abc", "secret_key: …"),
	Entry("with dashes", "x-api-key: abc", "x-api-key: …"),
	Entry("short", "DB_PASS=abc DB_PWD=def", "DB_PASS=… DB_PWD=…"),
	Entry("a pass phrase", "KEY_PASSPHRASE=abc", "KEY_PASSPHRASE=…"),
	Entry("credentials", "credentials: abc", "credentials: …"),
	Entry("keys", "private_key=a access-key=b apiKey=c", "private_key=… access-key=… apiKey=…"),
	Entry("an address", "amqp://u:p@box:5672/v", "amqp://…@box:5672/v"),
	Entry("an address with an @ in its password", "amqp://u:p@ss@box/v", "amqp://…@box/v"),
	Entry("an address with a slash in its password", "postgres://u:p/w@box/db failed", "postgres://…@box/db failed"),
	Entry("an address with a token alone", "https://ghp_abc@git/x", "https://…@git/x"),
	Entry("nothing: a verdict", "12 checks passed: ok", "12 checks passed: ok"),
	Entry("nothing: an address", "dial tcp 10.0.0.1:5672: refused; see https://git/x@v1",
		"dial tcp 10.0.0.1:5672: refused; see https://git/x@v1"),
	Entry("nothing: mail", "a@b.example wrote: hello", "a@b.example wrote: hello"),
	Entry("nothing: a key that is none", "key=5 keys: 3 monkey=7", "key=5 keys: 3 monkey=7"),
)
