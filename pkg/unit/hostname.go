package unit

import "strings"

// Hostname returns the name under which a service of OpenAperture reports itself when it runs as the unit of this name:
// the last HOSTNAME of its `Environment=`. host is the machine's host name, which stands behind `%H`; "" is an unknown
// one. The result is "" if the definition does not tell the name. An EnvironmentFile is not read.
func Hostname(name Name, host string, options []Option) string {
	hostname := ""
	for _, line := range Values(options, SectionService, "Environment") {
		words, err := SplitWords(line)
		if err != nil {
			return ""
		}
		for _, word := range words {
			if value, ok := strings.CutPrefix(word, "HOSTNAME="); ok {
				hostname = value
			}
		}
	}
	if host == "" && namesHost(hostname) {
		return ""
	}
	expanded, err := Specifiers{Name: name, Host: host}.Expand(hostname)
	if err != nil {
		return ""
	}
	return expanded
}

// namesHost tells whether a text has the specifier `%H`.
func namesHost(text string) bool {
	return strings.Contains(strings.ReplaceAll(text, "%%", ""), "%H")
}
