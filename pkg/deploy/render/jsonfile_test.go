package render_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/render"
)

var _ = Describe("A JSON file of a deployment repository", func() {
	DescribeTable("is accepted with",
		func(file, text string, count int) {
			got, err := render.Complete(with(map[string]string{file: text}))
			Expect(err).NotTo(HaveOccurred())
			Expect(got.FleetConfig.InstanceCount).To(HaveValue(Equal(count)))
		},
		Entry("a number", "fleet.json", `{"instance_cnt": 2}`, 2),
		Entry("a number as a string", "fleet.json", `{"instance_cnt": "2"}`, 2),
		Entry("a number as a string with spaces", "fleet.json", `{"instance_cnt": " 12 "}`, 12),
		Entry("the highest number", "fleet.json", `{"instance_cnt": 1000}`, 1000),
		Entry("another case of letters", "fleet.json", `{"Instance_Cnt": 2}`, 2),
		Entry("fields that nobody knows", "fleet.json", `{"a": {"b": [1, {"c": null}, []]}, "instance_cnt": 2, "d": -1.5e3}`,
			2),
		Entry("a field twice: the last counts", "fleet.json", `{"instance_cnt": 9, "instance_cnt": 2}`, 2),
		Entry("lines of Windows", "fleet.json", "{\r\n\t\"instance_cnt\": 2\r\n}\r\n", 2),
		Entry("escapes", "docker.json", `{"u": "\"\\\/\b\f\n\r\tä\ud83d\ude00"}`, 3),
		Entry("an empty object", "docker.json", `{}`, 3),
		Entry("null", "source.json", ` null `, 3),
		Entry("fields that are null", "source.json", `{"source_repo": null, "source_repo_git_ref": null}`, 3),
	)

	It("may begin with a byte order mark, as every file of the repository", func() {
		source := newRepo(map[string]string{"README": "x"})
		files := goodFiles()
		for name, text := range files {
			files[name] = "\ufeff" + text
		}
		files["source.json"] = "\ufeff" + `{"source_repo": "` + source.dir + `", "source_repo_git_ref": "master"}`
		deployment := newRepo(files)
		got, err := newGit().Render(context.Background(), render.Request{ComponentType: "overseer", ExchangeID: 7,
			DeploymentRepo: deployment.dir, DeploymentRef: "master"})
		Expect(err).NotTo(HaveOccurred())
		Expect(got.FleetConfig.InstanceCount).To(HaveValue(Equal(3)))
		Expect(got.SourceRepo).To(Equal(source.dir))
		Expect(got.Units).To(HaveLen(1))
	})

	const count = "a whole number from 1 to 1000"
	const token = `the cluster's token: 1 to 255 characters of ASCII without spaces, such as "cluster-1"`
	DescribeTable("gets an error that names file, line, field and what is expected, with",
		func(file, text, message string) {
			_, err := render.Complete(with(map[string]string{file: text}))
			Expect(reasonOf(err)).To(Equal(failure.RepoInvalid))
			f, _ := failure.Of(err)
			Expect(f.Message).To(Equal(message))
			Expect(f.Message).NotTo(MatchRegexp(`json:|unmarshal|Go |invalid character|\bint\b`))
		},
		// fleet.json
		Entry("a word as count", "fleet.json", "{\n \"instance_cnt\": \"two\"}",
			`fleet.json, line 2, field instance_cnt: expected `+count+`, found the string "two"`),
		Entry("an empty string as count", "fleet.json", `{"instance_cnt": ""}`,
			`fleet.json, line 1, field instance_cnt: expected `+count+`, found the string ""`),
		Entry("no instances", "fleet.json", `{"instance_cnt": 0}`,
			"fleet.json, line 1, field instance_cnt: expected "+count+", found the number 0"),
		Entry("too many instances", "fleet.json", `{"instance_cnt": 1001}`,
			"fleet.json, line 1, field instance_cnt: expected "+count+", found the number 1001"),
		Entry("a fraction", "fleet.json", "{\n\n\n\"instance_cnt\"\n:\n1.5}",
			"fleet.json, line 6, field instance_cnt: expected "+count+", found the number 1.5"),
		Entry("a list as count", "fleet.json", `{"instance_cnt": [2]}`,
			"fleet.json, line 1, field instance_cnt: expected "+count+", found a list [ … ]"),
		Entry("true as count", "fleet.json", `{"instance_cnt": true}`,
			"fleet.json, line 1, field instance_cnt: expected "+count+", found true"),
		Entry("a trailing comma", "fleet.json", "{\n  \"instance_cnt\": 2,\n}\n",
			"fleet.json, line 2, field instance_cnt: the comma before the closing } is too much; remove it"),
		Entry("a missing comma", "fleet.json", "{\n  \"a\": 1\n  \"instance_cnt\": 2\n}\n",
			`fleet.json, line 3, field a: expected a comma or the closing }, found "instance_cnt"`),
		Entry("a missing colon", "fleet.json", `{"instance_cnt" 2}`,
			`fleet.json, line 1, field instance_cnt: expected a colon after the name "instance_cnt", found "2"`),
		Entry("a missing value", "fleet.json", `{"instance_cnt": }`,
			"fleet.json, line 1, field instance_cnt: expected a value (a number, a string in double quotes, true, false, null, "+
				"[ … ] or { … }), found }"),
		Entry("a word without quotes as value", "fleet.json", `{"instance_cnt": two}`,
			"fleet.json, line 1, field instance_cnt: expected a value (a number, a string in double quotes, true, false, null, "+
				`[ … ] or { … }), found "two"`),
		Entry("a name without quotes", "fleet.json", "{\n instance_cnt: 2\n}",
			`fleet.json, line 2: expected the name of a field in double quotes, found "instance_cnt"`),
		Entry("a number that is none", "fleet.json", `{"instance_cnt": 02}`,
			"fleet.json, line 1, field instance_cnt: 02 is not a number"),
		Entry("single quotes", "fleet.json", `{"instance_cnt": '2'}`,
			`fleet.json, line 1, field instance_cnt: expected a value, found '; strings stand in double quotes (")`),
		Entry("a comment before the name", "fleet.json", "{\n// two\n\"instance_cnt\": 2}",
			"fleet.json, line 2: expected the name of a field, found a comment; JSON has no comments"),
		Entry("a comment before the value", "fleet.json", `{"instance_cnt": /* two */ 2}`,
			"fleet.json, line 1, field instance_cnt: expected a value, found a comment; JSON has no comments"),
		Entry("a comment behind the value", "fleet.json", `{"instance_cnt": 2 # two`+"\n}",
			"fleet.json, line 1, field instance_cnt: expected a comma or the closing }, found a comment; JSON has no comments"),
		Entry("no end", "fleet.json", "{\"instance_cnt\": 2\n\n",
			"fleet.json, line 1, field instance_cnt: the file ends before its closing }"),
		Entry("no end at all", "fleet.json", "{", "fleet.json, line 1: the file ends before its closing }"),
		Entry("no end behind a colon", "fleet.json", `{"instance_cnt":`,
			"fleet.json, line 1, field instance_cnt: the file ends where a value is expected"),
		Entry("text behind the end", "fleet.json", "{\"instance_cnt\": 2}\n}",
			"fleet.json, line 2: expected nothing more after the closing }, found }"),
		Entry("a list", "fleet.json", "[2]", `fleet.json, line 1: expected an object such as {"name": "value"}, found [`),
		Entry("a number alone", "fleet.json", "2",
			`fleet.json, line 1: expected an object such as {"name": "value"}, found "2"`),
		Entry("nothing but lines", "fleet.json", "\n\n",
			`fleet.json, line 1: the file is empty; expected an object such as {"name": "value"}`),
		Entry("UTF-16", "fleet.json", "\xff\xfe{\x00}\x00", "fleet.json, line 1: the file is encoded as UTF-16; save it as "+
			"UTF-8"),
		Entry("Latin-1", "fleet.json", "{\n\"a\": \"\xe4\"}",
			"fleet.json, line 2: the file is not encoded as UTF-8; save it as UTF-8"),
		// etcd.json
		Entry("a number as token", "etcd.json", `{"token": 1}`,
			`etcd.json, line 1, field token: expected a string such as "cluster-1", found the number 1`),
		Entry("no token", "etcd.json", `{"tokn": "a"}`, "etcd.json, field token: it is missing; expected "+token),
		Entry("a blank token", "etcd.json", `{"token": " "}`,
			`etcd.json, line 1, field token: expected `+token+`, found the string " "`),
		Entry("a space in the token", "etcd.json", `{"token": "a b"}`,
			`etcd.json, line 1, field token: expected `+token+`, found the string "a b"`),
		Entry("a line that ends inside of the token", "etcd.json", "{\n\"token\": \"abc\n}",
			"etcd.json, line 2, field token: the line ends inside of a string; its closing double quote is missing"),
		Entry("an end inside of the token", "etcd.json", `{"token": "abc`,
			"etcd.json, line 1, field token: the file ends inside of a string; its closing double quote is missing"),
		// source.json
		Entry("a number as ref", "source.json", "{\"source_repo\": \"a/b\",\n\"source_repo_git_ref\": 1.2}",
			`source.json, line 2, field source_repo_git_ref: expected a string such as "v1.2.0", found the number 1.2`),
		Entry("an object as repository", "source.json", `{"source_repo": {}}`,
			`source.json, line 1, field source_repo: expected a string such as "https://git.example.com/app.git", `+
				`found an object { … }`),
		// docker.json
		Entry("a backslash", "docker.json", `{"docker_url": "C:\dir"}`,
			`docker.json, line 1, field docker_url: \d is unknown in a string; a backslash is written as \\`),
		Entry("a tab in a string", "docker.json", "{\"docker_url\": \"a\tb\"}",
			`docker.json, line 1, field docker_url: a string contains the control character 9; write it as \u0009`),
		Entry("a trailing comma in a list", "docker.json", "{\"a\": [\n1,\n2,\n]}",
			"docker.json, line 3, field a: the comma before the closing ] is too much; remove it"),
		Entry("an open list", "docker.json", `{"a": [1, 2}`,
			"docker.json, line 1, field a: expected a comma or the closing ], found }"),
		Entry("endless nesting", "docker.json", `{"a": `+strings.Repeat("[", 200_000),
			"docker.json, line 1, field a: values are nested deeper than 100 levels"),
	)

	It("is missing, and must not be", func() {
		_, err := render.Complete(with(map[string]string{"etcd.json": ""}))
		Expect(reasonOf(err)).To(Equal(failure.RepoInvalid))
		Expect(err).To(MatchError(ContainSubstring(`etcd.json is missing: expected {"token": "…"} with ` + token)))
	})
})

// FuzzJSON compares what is JSON with the standard library.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"a": [1, -2.5e+3, "\u00e4\ud83d", {"b": null}], "c": true}`, `{"a": 1,}`, `{"a" 1}`,
		`{}`, ` null`, `[]`,
		"\ufeff{}", `{"a": "`, `{"a": {`, "{\"\xe4\": 1}", `{"a": "\u12"}`, `{"a": 01}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want map[string]json.RawMessage
		good := json.Unmarshal([]byte(text), &want) == nil
		if err := render.ReadJSON(text); (err == nil) != good && !excused(text, err) {
			t.Fatalf("%q: %v, want valid: %t", text, err, good)
		}
	})
}

// excused are the two limits that the standard library does not have.
func excused(text string, err error) bool {
	return strings.ToValidUTF8(text, "") != text || err != nil && strings.Contains(err.Error(), "nested deeper")
}
