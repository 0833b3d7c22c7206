package soak

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Tally is what one run, or several, counted. It is a line of the file of results.
type Tally struct {
	Seeds      []uint64               `json:"seeds"`
	Commits    []string               `json:"commits"`
	At         time.Time              `json:"at"`
	Seconds    float64                `json:"seconds"`
	Steps      int                    `json:"steps"` // after each of which every invariant was checked
	Good       int                    `json:"good"`  // releases that came to their end
	Bad        int                    `json:"bad"`
	Proven     int                    `json:"proven"`      // good ones that were proven
	RolledBack int                    `json:"rolled_back"` // bad ones that were taken back
	Again      int                    `json:"again"`       // upgrades failed by the environment and made once more
	Broken     map[Kind]int           `json:"broken"`
	Violations []string               `json:"violations,omitempty"`
	Faults     map[Fault]int          `json:"faults"`
	Moments    map[kind]map[Fault]int `json:"moments"`
	Recovery   []float64              `json:"recovery"` // seconds from the last fault of an upgrade until all was right
	Beats      int                    `json:"beats"`    // heartbeats of simulated modules that the broker took
}

func newTally(cfg Config) Tally {
	return Tally{Seeds: []uint64{cfg.Seed}, Commits: []string{cfg.Commit}, At: time.Now().UTC().Truncate(time.Second),
		Broken: map[Kind]int{}, Faults: map[Fault]int{}, Moments: map[kind]map[Fault]int{}}
}

func (t *Tally) took(d time.Duration) { t.Seconds = d.Seconds() }

func (t *Tally) recovered(d time.Duration) { t.Recovery = append(t.Recovery, d.Seconds()) }

func (t *Tally) violation(v Violation) {
	t.Broken[v.Invariant.Wrong]++
	t.Violations = append(t.Violations, v.String())
}

// struck counts a fault, and the moment that it fell into.
func (t *Tally) struck(f Fault, m moment) {
	t.Faults[f]++
	for _, k := range counted {
		if !m.is(k) {
			continue
		}
		if t.Moments[k] == nil {
			t.Moments[k] = map[Fault]int{}
		}
		t.Moments[k][f]++
	}
}

// upgraded counts a release that came to its end.
func (t *Tally) upgraded(release Release, now Observation) {
	if release.Broken == nil {
		t.Good++
		t.Proven++
	} else {
		t.Bad++
		t.RolledBack++
	}
	t.Again += again(now, release)
}

// add adds another run.
func (t *Tally) add(o Tally) {
	t.Seeds, t.Commits = append(t.Seeds, o.Seeds...), append(t.Commits, o.Commits...)
	t.Seconds += o.Seconds
	t.Steps += o.Steps
	t.Good, t.Bad, t.Proven, t.RolledBack = t.Good+o.Good, t.Bad+o.Bad, t.Proven+o.Proven, t.RolledBack+o.RolledBack
	t.Again += o.Again
	t.Beats += o.Beats
	t.Violations, t.Recovery = append(t.Violations, o.Violations...), append(t.Recovery, o.Recovery...)
	for k, n := range o.Broken {
		t.Broken[k] += n
	}
	for f, n := range o.Faults {
		t.Faults[f] += n
	}
	for k, by := range o.Moments {
		if t.Moments[k] == nil {
			t.Moments[k] = map[Fault]int{}
		}
		for f, n := range by {
			t.Moments[k][f] += n
		}
	}
}

// Write writes the table.
func (t Tally) Write(out io.Writer) {
	fmt.Fprintf(out, "\nseeds %v, %.0f s, %d steps with all invariants, %d heartbeats of simulated modules\n",
		t.Seeds, t.Seconds, t.Steps, t.Beats)
	fmt.Fprintf(out, "%7d  good releases, %d proven\n%7d  bad releases, %d rolled back\n", t.Good, t.Proven, t.Bad,
		t.RolledBack)
	for _, k := range []Kind{Stuck, Doubled, Wrong} {
		fmt.Fprintf(out, "%7d  %s\n", t.Broken[k], k)
	}
	fmt.Fprintf(out, "%7d  upgrades failed by the environment and were made again\n", t.Again)
	if len(t.Recovery) > 0 {
		sorted := slices.Sorted(slices.Values(t.Recovery))
		fmt.Fprintf(out, "%7.1f  s from the last fault until all was right (median; at most %.1f)\n",
			sorted[len(sorted)/2], sorted[len(sorted)-1])
	}
	t.writeFaults(out)
	for _, v := range t.Violations {
		fmt.Fprintf(out, "BROKEN   %s\n", v)
	}
}

// writeFaults writes how many faults of each kind fell into each kind of moment, also into none.
func (t Tally) writeFaults(out io.Writer) {
	var used []Fault
	for _, f := range Faults {
		if t.Faults[f] > 0 {
			used = append(used, f)
		}
	}
	row := func(name string, of map[Fault]int) {
		fmt.Fprintf(out, "  %-28s", name)
		for _, f := range used {
			fmt.Fprintf(out, "%9d", of[f])
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "  %-28s", "faults")
	for _, f := range used {
		fmt.Fprintf(out, "%9s", f)
	}
	fmt.Fprintln(out)
	row("in all", t.Faults)
	for _, k := range counted {
		row(string(k), t.Moments[k])
	}
}

// Append adds the run to a file of results, one line a run, and returns the sum of all its lines.
func (t Tally) Append(path string) (Tally, error) {
	line, err := json.Marshal(t)
	if err != nil {
		return t, fmt.Errorf("encode the results: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644) //nolint:gosec // figures
	if err != nil {
		return t, fmt.Errorf("open the results: %w", err)
	}
	_, err = file.Write(append(line, '\n'))
	sum, readErr := sumOf(file)
	return sum, errors.Join(err, readErr, file.Close())
}

// sumOf adds up the lines of a file of results.
func sumOf(file io.ReadSeeker) (Tally, error) {
	sum := Tally{Broken: map[Kind]int{}, Faults: map[Fault]int{}, Moments: map[kind]map[Fault]int{}}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return sum, fmt.Errorf("read the results: %w", err)
	}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var t Tally
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			return sum, fmt.Errorf("read the results: %w", err)
		}
		sum.add(t)
	}
	return sum, lines.Err()
}
