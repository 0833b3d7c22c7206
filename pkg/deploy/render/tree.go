package render

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
)

const (
	maxFile    = 256 << 10 // bytes of one file that we read
	maxEntries = 20_000    // of the whole tree
	maxRead    = 64        // files that we read

	byteOrderMark = "\ufeff" // some editors begin a file with it
)

// tree is what the root of a commit holds, by name, and when it was committed.
type tree struct {
	files       map[string]string
	committedAt time.Time
}

type entry struct {
	mode, object, name string
	size               int64
}

// read lists a commit and reads the files of its root that wanted chooses. A symlink or submodule anywhere refuses it
// (G3).
func (g *Git) read(ctx context.Context, c commit, wanted func(name string) bool) (tree, error) {
	out, err := g.command(ctx, c.repo, nil, nil, "--git-dir="+c.dir, "ls-tree", "-r", "-l", "-z", "--full-tree", c.id)
	if err != nil {
		return tree{}, unreadable(ctx, c, err)
	}
	entries, err := parseEntries(out)
	if err != nil {
		return tree{}, err
	}
	var chosen []entry
	for _, e := range entries {
		if strings.Contains(e.name, "/") || !wanted(e.name) {
			continue
		}
		if e.size > maxFile {
			return tree{}, failure.New(failure.RepoInvalid, "%s has %d bytes, more than %d", e.name, e.size, maxFile)
		}
		chosen = append(chosen, e)
	}
	if len(chosen) > maxRead {
		return tree{}, failure.New(failure.RepoInvalid, "more than %d files to read", maxRead)
	}
	return g.readObjects(ctx, c, chosen)
}

// unreadable is a commit in our cache that git cannot read; the end of ctx is no fault of it.
func unreadable(ctx context.Context, c commit, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return failure.New(failure.GitRefused, "commit %s of %s cannot be read: %w", c.id, shorten(c.repo.url), err)
}

// parseEntries reads `mode type object size\tname\0`.
func parseEntries(out []byte) ([]entry, error) {
	var entries []entry
	for record := range bytes.SplitSeq(bytes.TrimSuffix(out, []byte{0}), []byte{0}) {
		if len(record) == 0 {
			continue
		}
		head, name, _ := strings.Cut(string(record), "\t")
		fields := strings.Fields(head)
		if len(fields) != 4 {
			return nil, failure.New(failure.GitRefused, "a tree entry is malformed")
		}
		switch fields[0] {
		case "120000":
			return nil, failure.New(failure.RepoInvalid, "%s is a symbolic link", shorten(name))
		case "160000":
			return nil, failure.New(failure.RepoInvalid, "%s is a submodule", shorten(name))
		}
		size, _ := strconv.ParseInt(fields[3], 10, 64)
		entries = append(entries, entry{fields[0], fields[2], name, size})
		if len(entries) > maxEntries {
			return nil, failure.New(failure.RepoInvalid, "more than %d files", maxEntries)
		}
	}
	return entries, nil
}

// readObjects reads the commit and the chosen files with one process.
func (g *Git) readObjects(ctx context.Context, c commit, chosen []entry) (tree, error) {
	var ask strings.Builder
	ask.WriteString(c.id + "\n")
	for _, e := range chosen {
		ask.WriteString(e.object + "\n")
	}
	out, err := g.command(ctx, c.repo, nil, []byte(ask.String()), "--git-dir="+c.dir, "cat-file", "--batch")
	if err != nil {
		return tree{}, unreadable(ctx, c, err)
	}
	rest := out
	next := func() (body []byte) {
		body, rest, err = cutObject(rest)
		return body
	}
	header := next()
	t := tree{files: map[string]string{}}
	for _, e := range chosen {
		if err == nil {
			t.files[e.name] = strings.TrimPrefix(string(next()), byteOrderMark)
		}
	}
	if err != nil {
		return tree{}, unreadable(ctx, c, err)
	}
	t.committedAt, err = commitTime(header)
	if err != nil {
		return tree{}, unreadable(ctx, c, err)
	}
	return t, nil
}

// cutObject takes one `<id> <type> <size>\n<body>\n` off the answer of cat-file.
func cutObject(out []byte) (body, rest []byte, err error) {
	head, after, ok := bytes.Cut(out, []byte("\n"))
	fields := bytes.Fields(head)
	if !ok || len(fields) != 3 {
		return nil, nil, fmt.Errorf("object is missing: %s", shorten(string(head)))
	}
	size, err := strconv.Atoi(string(fields[2]))
	if err != nil || size < 0 || size+1 > len(after) {
		return nil, nil, fmt.Errorf("object is cut short: %s", shorten(string(head)))
	}
	return after[:size], after[size+1:], nil
}

// commitTime is the committer's time: `committer Name <mail> 1700000000 +0100`.
func commitTime(header []byte) (time.Time, error) {
	for line := range bytes.Lines(header) {
		text := strings.TrimSpace(string(line))
		if text == "" {
			break
		}
		if !strings.HasPrefix(text, "committer ") {
			continue
		}
		fields := strings.Fields(text)
		seconds, err := strconv.ParseInt(fields[max(len(fields)-2, 0)], 10, 64)
		if err != nil {
			break
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("commit has no committer time")
}
