package unit

import "slices"

const (
	optionVersion = "Version"
	optionCommit  = "Commit"
)

// Version is the version of a component that a definition runs. The executor writes it into the definition, because two
// versions may have the same unit text.
type Version struct {
	Ref    string // of the source repository
	Commit string // the full commit behind Ref; "" if nobody knows it
}

// IsZero tells whether nothing is known of the version.
func (v Version) IsZero() bool { return v == Version{} }

// Same tells whether two versions are the same. Another ref at the same commit is another version. A commit that one
// side does not know is no difference.
func (v Version) Same(o Version) bool {
	return v.Ref == o.Ref && (v.Commit == o.Commit || v.Commit == "" || o.Commit == "")
}

// WithVersion returns a copy of options that carries a version, in place of any that it carried. The zero Version
// leaves none.
func WithVersion(options []Option, v Version) []Option {
	stamped := WithoutVersion(options)
	if v.Ref != "" {
		stamped = append(stamped, Option{SectionOpenAperture, optionVersion, v.Ref})
	}
	if v.Commit != "" {
		stamped = append(stamped, Option{SectionOpenAperture, optionCommit, v.Commit})
	}
	return stamped
}

// VersionOf returns the version that a definition carries. ok is false if it carries none: it was written by a release
// before this rule, or by somebody else.
func VersionOf(options []Option) (v Version, ok bool) {
	v.Ref = Value(options, SectionOpenAperture, optionVersion)
	v.Commit = Value(options, SectionOpenAperture, optionCommit)
	return v, !v.IsZero()
}

// WithoutVersion returns a copy of options without the version.
func WithoutVersion(options []Option) []Option {
	return slices.DeleteFunc(slices.Clone(options), func(o Option) bool {
		return o.Section == SectionOpenAperture && (o.Name == optionVersion || o.Name == optionCommit)
	})
}
