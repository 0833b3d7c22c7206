package unit

import "strings"

// Placement returns the options of `[X-Fleet]` as Fleet applies them to the
// unit of this name: `%n`, `%N`, `%p` and `%i` are expanded in every value,
// and anything else behind a `%` stays as it is.
func Placement(name Name, options []Option) []Option {
	expand := strings.NewReplacer("%n", name.String(), "%N", name.Prefix(), "%p", name.Base, "%i", name.Instance)
	var placement []Option
	for _, o := range options {
		if o.Section == SectionFleet {
			o.Value = expand.Replace(o.Value)
			placement = append(placement, o)
		}
	}
	return placement
}
