package render

import "strings"

// Environment is what git sees for an https address.
func Environment(g *Git) []string { return g.environment(address{transport: overHTTPS}) }

// Complete reads the files of a deployment repository without git.
func Complete(files map[string]string) (Release, error) {
	t := tree{files: files}
	repo, ref, err := sourceOf(t)
	if err != nil {
		return Release{}, err
	}
	out := Release{SourceRepo: repo, SourceRef: orElse(ref, "v1"), SourceCommit: strings.Repeat("a", 40)}
	return out.complete(t, Request{ComponentType: "overseer", ExchangeID: 7})
}

// ReadJSON is the error of a JSON file with this text.
func ReadJSON(text string) error {
	_, err := readJSONFile(tree{files: map[string]string{"docker.json": text}}, "docker.json")
	return err
}
