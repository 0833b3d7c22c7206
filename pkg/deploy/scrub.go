package deploy

import "regexp"

// In what an instance wrote, secrets follow `name=`, `name: ` or a bare name. A password in an address may contain a
// slash or an @, so that everything up to the last @ is taken for it where a colon says that there is one.
var (
	credentials = regexp.MustCompile(`://(?:[^\s/@:]*:\S*@|[^/\s]*@)`)
	named       = regexp.MustCompile(`(?i)((?:pass(?:w(?:or)?d|phrase|[_-]|\b)|(?:pwd|secret|token|credential|bearer|` +
		`(?:private|access|api)[_-]?key))[\w-]*["']?\s*[=:]\s*["']?)[^\s"',;&]+`)
	bare = regexp.MustCompile(`(?i)((?:password|passwd|secret|token|api_?key|bearer)["']?\s+["']?)` +
		`[^\s"',;&:=][^\s"',;&]*`)
)

// scrub takes secrets out of a text.
func scrub(text string) string {
	text = credentials.ReplaceAllString(text, "://…@")
	return bare.ReplaceAllString(named.ReplaceAllString(text, "${1}…"), "${1}…")
}
