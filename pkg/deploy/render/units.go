package render

import (
	"slices"
	"strings"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// The forms of a unit file, by suffix. A template wins over a rendered file beside it, which the predecessor committed.
const (
	suffixPlain = ".service"
	suffixGo    = ".service.tmpl"
	suffixEEx   = ".service.eex"
)

// unitFile tells whether a file of the repository's root is one, and the name of the unit that it makes.
func unitFile(file string) (unitName string, ok bool) {
	for _, suffix := range []string{suffixGo, suffixEEx, suffixPlain} {
		if base, found := strings.CutSuffix(file, suffix); found {
			return base + suffixPlain, true
		}
	}
	return "", false
}

// renderUnits renders and validates every unit of the tree, in order of their names.
func renderUnits(t tree, v values) ([]messages.UnitDefinition, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	sources, err := chooseSources(t)
	if err != nil {
		return nil, err
	}
	units := make([]messages.UnitDefinition, 0, len(sources))
	for _, file := range sources {
		u, err := renderUnit(file, t.files[file], v)
		if err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	return units, nil
}

// chooseSources picks one file for each unit.
func chooseSources(t tree) ([]string, error) {
	byUnit := map[string]string{}
	for file := range t.files {
		name, ok := unitFile(file)
		if !ok {
			continue
		}
		other, taken := byUnit[name]
		switch {
		case taken && file != name && other != name:
			return nil, failure.New(failure.RepoInvalid, "%s and %s make the same unit", min(file, other), max(file, other))
		case !taken || file != name:
			byUnit[name] = file
		}
	}
	if len(byUnit) == 0 {
		return nil, failure.New(failure.NoUnits, "the root of the deployment repository has no .service file")
	}
	files := make([]string, 0, len(byUnit))
	for _, file := range byUnit {
		files = append(files, file)
	}
	slices.SortFunc(files, func(a, b string) int {
		x, _ := unitFile(a)
		y, _ := unitFile(b)
		return strings.Compare(x, y)
	})
	return files, nil
}

func renderUnit(file, text string, v values) (messages.UnitDefinition, error) {
	unitName, _ := unitFile(file)
	parsedName, err := unit.ParseName(unitName)
	if err != nil || (parsedName.Templated && !parsedName.IsTemplate()) {
		return messages.UnitDefinition{},
			failure.New(failure.UnitInvalid, "%s: want <app>@.service or <app>.service", shorten(file))
	}
	rendered, err := render(file, text, v)
	if err != nil {
		return messages.UnitDefinition{}, err
	}
	options, err := unit.Parse(rendered)
	if err != nil {
		return messages.UnitDefinition{}, failure.New(failure.UnitInvalid, "%s: %w", file, err)
	}
	if err := sameShape(file, text, options); err != nil {
		return messages.UnitDefinition{}, err
	}
	return messages.UnitDefinition{Name: unitName, Options: toMessages(options)}, checkUnit(file, options)
}

func render(file, text string, v values) (string, error) {
	switch {
	case strings.HasSuffix(file, suffixGo):
		return renderGo(file, text, v)
	case strings.HasSuffix(file, suffixEEx):
		return renderEEx(file, text, v)
	default:
		return text, nil
	}
}

// sameShape renders once more with placeholders: values must never add, remove or rename an option (S5, G6).
func sameShape(file, text string, options []unit.Option) error {
	plainText, err := render(file, text, placeholders())
	if err != nil {
		return err
	}
	want, err := unit.Parse(plainText)
	if err != nil {
		return failure.New(failure.UnitInvalid, "%s: %w", file, err)
	}
	same := slices.EqualFunc(want, options,
		func(a, b unit.Option) bool { return a.Section == b.Section && a.Name == b.Name })
	again, err := unit.Parse(unit.Render(options))
	if err != nil || !same || !sameOptions(again, options) {
		return failure.New(failure.TemplateInvalid, "%s: a variable changes the structure of the unit", file)
	}
	return nil
}

// sameOptions compares what a rendered unit says: Render gathers sections, so order counts within each only.
func sameOptions(a, b []unit.Option) bool {
	return unit.Render(a) == unit.Render(b) && len(a) == len(b)
}

func checkUnit(file string, options []unit.Option) error {
	if err := unit.Validate(options); err != nil {
		return failure.New(failure.UnitInvalid, "%s: %w", file, err)
	}
	for _, o := range options {
		if o.Section == unit.SectionOpenAperture {
			return failure.New(failure.UnitInvalid, "%s: section %s belongs to the executor", file, unit.SectionOpenAperture)
		}
	}
	if unit.IsGlobal(options) {
		return failure.New(failure.UnitInvalid, "%s: a global unit cannot be rolled out one at a time", file)
	}
	return nil
}

func toMessages(options []unit.Option) []messages.Option {
	out := make([]messages.Option, len(options))
	for i, o := range options {
		out[i] = messages.Option(o)
	}
	return out
}
