package fleetapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// recording is one request to a real fleet with its answer.
type recording struct {
	name                      string
	method, path, contentType string
	body                      string
	status                    int
	answer                    string
}

// deviation is a recording that unitd answers otherwise, on purpose.
type deviation struct {
	status  int
	message string // of the error; "" where the body is not compared
	why     string
}

const stricter = "unitd is stricter: fleet takes what it then cannot run"

// deviations are all differences to fleet. What is not here must be the same.
var deviations = map[string]deviation{
	"04-machines-post": {405, "only GET supported against this resource",
		"unitd's metadata is configured, not patched"},
	"28-put-bad-desired-state":    {400, `invalid desiredState "running"`, stricter},
	"32-put-bad-xfleet-key":       {400, `option 2: unknown key "Bogus" in section X-Fleet`, stricter},
	"34-put-option-empty-section": {400, `option 1: "ExecStart" has an empty section`, stricter},
	"35-put-option-newline":       {400, "option 1: the value of ExecStart contains a line break or NUL", stricter},
	"55-put-no-exec":              {400, "service has no ExecStart", stricter},
	"77-poison-put":               {400, `invalid desiredState "running"`, "fleet's bug: the unit is lost from then on"},
	"78-poison-get":               {200, "", "the unit was not poisoned"},
	"79-poison-units":             {200, "", "the unit was not poisoned, and others exist"},
	"80-poison-put-good":          {204, "", "the unit was not poisoned"},
	"81-poison-delete":            {204, "", "the unit was not poisoned"},
	"82-poison-units-after":       {200, "", "others exist"},
	"22-get-after-other-options":  {200, "", "fleet's currentState lags by seconds"},
	"68-get-instance-placed":      {200, "", "one host: the first instance is placed here"},
	"69-get-instance-unplaced":    {200, "", "one host: the third instance conflicts with the first"},
	"70-units-page-1":             {200, "", "four units were refused: compared below"},
	"71-units-page-2":             {200, "", "four units were refused: compared below"},
}

var machineIDs = regexp.MustCompile(`"[0-9a-f]{32}"`)

// ours are the fields that unitd adds to a state.
var ours = []string{"activeSince", "restarts", "mainPID", "result", "statusText"}

var _ = Describe("A real fleet's recordings", Ordered, ContinueOnFailure, func() {
	var h *harness
	BeforeAll(func() { h = serve("") })

	for _, r := range recordings() {
		It("are answered alike: "+r.name, func() {
			if r.name == "70-units-page-1" {
				h.addPages()
			}
			if r.name == "77-poison-put" {
				Expect(h.put("poison.service", "inactive", "", "Service.ExecStart=/bin/true").Status).To(Equal(201))
			}
			if r.method == http.MethodGet { // fleet's answers were recorded seconds after the change
				Eventually(func() error { return r.compare(h) }).WithTimeout(10 * time.Second).WithPolling(10 * time.Millisecond).
					Should(Succeed())
				return
			}
			Expect(r.compare(h)).To(Succeed())
		})
	}

	It("page by a hundred", func() {
		first, second := h.unitNames("/fleet/v1/units"), h.unitNames("/fleet/v1/units?nextPageToken=ZAACAA==")
		Expect(first.NextPageToken).To(Equal("ZAACAA=="))
		Expect(first.Units).To(HaveLen(100))
		Expect(second.NextPageToken).To(BeEmpty())
		Expect(second.Units).NotTo(BeEmpty())
		Expect(h.do("GET", "/fleet/v1/units?nextPageToken=ZAADAA==", "").Body).To(Equal("{}"))
		var names []string
		for _, u := range append(first.Units, second.Units...) {
			names = append(names, u.Name)
		}
		Expect(slices.IsSorted(names)).To(BeTrue())
		Expect(slices.Compact(slices.Clone(names))).To(Equal(names))
	})

	It("have instances that conflict: one of them is placed", func() {
		first := h.do("GET", "/fleet/v1/units/t@1.service", "").Body
		third := h.do("GET", "/fleet/v1/units/t@3.service", "").Body
		Expect(first).To(ContainSubstring("machineID"))
		Expect(third).NotTo(ContainSubstring("machineID"))
		Expect(third).To(ContainSubstring(`"currentState":"inactive"`))
		Expect(h.state("t@3.service").Name).To(BeEmpty())
	})
})

type unitList struct {
	NextPageToken string
	Units         []struct{ Name string }
}

func (h *harness) unitNames(path string) unitList {
	GinkgoHelper()
	var list unitList
	Expect(json.Unmarshal([]byte(h.do("GET", path, "").Body), &list)).To(Succeed())
	return list
}

// addPages puts the units that were there when the pages were recorded.
func (h *harness) addPages() {
	for i := 100; i < 220; i++ {
		answer := h.put(fmt.Sprintf("page%d.service", i), "inactive", "", "Service.ExecStart=/bin/sleep 3600")
		Expect(answer.Status).To(Equal(201))
	}
}

func (r recording) compare(h *harness) error {
	var header []string
	if r.contentType != "" {
		header = []string{"Content-Type", r.contentType}
	}
	path := regexp.MustCompile("machineID=[0-9a-f]+").ReplaceAllString(r.path, "machineID="+h.host.Machine().ID)
	got := h.do(r.method, path, r.body, header...)
	wantStatus, want := r.status, r.answer
	if d, ok := deviations[r.name]; ok {
		wantStatus, want = d.status, ""
		if d.message != "" {
			text, _ := json.Marshal(map[string]any{"error": map[string]any{"code": d.status, "message": d.message}})
			want = string(text)
		}
	}
	if got.Status != wantStatus {
		return fmt.Errorf("status %d, recorded %d: %s", got.Status, wantStatus, got.Body)
	}
	if want == "" {
		return nil
	}
	var theirs, mine any
	if err := json.Unmarshal([]byte(machineIDs.ReplaceAllString(want, `"a machine"`)), &theirs); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(machineIDs.ReplaceAllString(got.Body, `"a machine"`)), &mine); err != nil {
		return err
	}
	return same("", theirs, mine)
}

// same compares a recorded value with ours: the same keys (but for our own),
// the same values but for machine ids, and of lists over several machines the first entry.
func same(at string, theirs, mine any) error {
	switch theirs := theirs.(type) {
	case map[string]any:
		mine, ok := mine.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: %v is no object", at, mine)
		}
		for key := range mine {
			if _, ok := theirs[key]; !ok && !slices.Contains(ours, key) {
				return fmt.Errorf("%s.%s is not fleet's", at, key)
			}
		}
		for key, value := range theirs {
			if at == ".machines[0]" && mine[key] != nil { // metadata and address are the machine's own
				continue
			}
			if err := same(at+"."+key, value, mine[key]); err != nil {
				return err
			}
		}
		return nil
	case []any:
		mine, ok := mine.([]any)
		if !ok || len(mine) == 0 && len(theirs) > 0 {
			return fmt.Errorf("%s: %v is no list", at, mine)
		}
		perMachine := at == ".machines" || at == ".states"
		if !perMachine && len(mine) != len(theirs) {
			return fmt.Errorf("%s: %d entries, recorded %d", at, len(mine), len(theirs))
		}
		for i := range mine {
			if err := same(fmt.Sprintf("%s[%d]", at, i), theirs[i], mine[i]); err != nil {
				return err
			}
		}
		return nil
	default:
		if theirs != mine {
			return fmt.Errorf("%s: %v, recorded %v", at, mine, theirs)
		}
		return nil
	}
}

// recordings reads testdata/recorded in order.
func recordings() []recording {
	files, err := filepath.Glob("testdata/recorded/*.txt")
	if err != nil || len(files) == 0 {
		panic("no recordings")
	}
	var list []recording
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		list = append(list, parseRecording(strings.TrimSuffix(filepath.Base(file), ".txt"), string(text)))
	}
	return list
}

func parseRecording(name, text string) recording {
	r := recording{name: name}
	request, response, _ := strings.Cut(text, "\n< HTTP/1.1 ")
	words := strings.Fields(request)
	r.method, r.path = words[1], words[2]
	for line := range strings.SplitSeq(request, "\n") {
		switch {
		case strings.HasPrefix(line, "> Content-Type: "):
			r.contentType = strings.TrimPrefix(line, "> Content-Type: ")
		case !strings.HasPrefix(line, ">") && line != "":
			r.body = line
		}
	}
	r.status, _ = strconv.Atoi(response[:3])
	if _, body, ok := strings.Cut(response, "\n< \n\n"); ok {
		r.answer = strings.TrimSpace(body)
	}
	return r
}
