package unit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Command is an Exec line split into words, before specifiers and variables are expanded.
type Command struct {
	// Words are the program and its arguments, never empty.
	Words []string
	// IgnoreFailure is the prefix `-`: a failing exit counts as success.
	IgnoreFailure bool
	// Literal is the prefix `:`: variables are not expanded.
	Literal bool
	// Privileged is the prefix `+` or `!`: User= and Group= do not apply.
	Privileged bool
}

// ParseCommand splits an Exec line as systemd does: the prefixes `-`, `:`, `+`,
// `!` and `!!` (which has an effect only on kernels without ambient
// capabilities: none here), then words. `@` (another argv[0]) and `;` (several commands) are refused.
func ParseCommand(line string) (Command, error) {
	words, err := SplitWords(line)
	if err != nil {
		return Command{}, err
	}
	if len(words) == 0 {
		return Command{}, errors.New("command is empty")
	}
	var c Command
	program := words[0]
	exclamations := 0
	for program != "" && strings.ContainsRune("-:+!@", rune(program[0])) {
		switch program[0] {
		case '-':
			c.IgnoreFailure = true
		case ':':
			c.Literal = true
		case '+':
			c.Privileged = true
		case '!':
			exclamations++
		case '@':
			return Command{}, errors.New("the prefix @ (another argv[0]) is not supported")
		}
		program = program[1:]
	}
	c.Privileged = c.Privileged || exclamations == 1
	if program == "" {
		return Command{}, errors.New("command has no program")
	}
	for _, word := range words {
		if word == ";" {
			return Command{}, errors.New("several commands in one line are not supported, repeat the option")
		}
	}
	c.Words = append([]string{program}, words[1:]...)
	return c, nil
}

// SplitWords splits at white space with systemd's quoting: '…' and "…" group,
// backslash escapes are C's (and `\s` for a space) inside and outside of
// quotes; an escape that systemd does not know keeps its backslash. It serves
// command lines and `Environment=`.
func SplitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\':
			text, used := unescape(line[i+1:])
			word.WriteString(text)
			inWord = true
			i += used
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unbalanced quote %q", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

var simpleEscapes = map[byte]string{
	'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
	'\\': `\`, '"': `"`, '\'': `'`, 's': " ",
}

// unescape resolves what follows a backslash and says how many bytes it used.
func unescape(rest string) (string, int) {
	if rest == "" {
		return `\`, 0
	}
	if text, ok := simpleEscapes[rest[0]]; ok {
		return text, 1
	}
	switch {
	case rest[0] == 'x' && len(rest) >= 3:
		if v, err := strconv.ParseUint(rest[1:3], 16, 8); err == nil && v != 0 {
			return string([]byte{byte(v)}), 3
		}
	case rest[0] == 'u' && len(rest) >= 5:
		if v, err := strconv.ParseUint(rest[1:5], 16, 32); err == nil && v != 0 {
			return string(rune(v)), 5
		}
	case rest[0] >= '0' && rest[0] <= '7' && len(rest) >= 3:
		if v, err := strconv.ParseUint(rest[:3], 8, 8); err == nil && v != 0 {
			return string([]byte{byte(v)}), 3
		}
	}
	return `\`, 0
}

// Specifiers are the values behind `%`.
type Specifiers struct {
	Name Name   // %n whole, %p its base, %i its instance
	Host string // %H
}

// Expand replaces `%i`, `%n`, `%p`, `%H` and `%%`. Another specifier is an
// error: silently keeping it would start something else than was written.
func (s Specifiers) Expand(text string) (string, error) {
	if !strings.Contains(text, "%") {
		return text, nil
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out.WriteByte(text[i])
			continue
		}
		i++
		if i == len(text) {
			return "", fmt.Errorf("%q ends in an incomplete specifier", text)
		}
		switch text[i] {
		case 'i':
			out.WriteString(s.Name.Instance)
		case 'n':
			out.WriteString(s.Name.String())
		case 'p':
			out.WriteString(s.Name.Base)
		case 'H':
			out.WriteString(s.Host)
		case '%':
			out.WriteByte('%')
		default:
			return "", fmt.Errorf("unknown specifier %%%c", text[i])
		}
	}
	return out.String(), nil
}

// Argv expands specifiers and then, unless the command is literal, variables
// of env: `${VAR}` anywhere gives exactly its value, `$VAR` as a whole word
// gives the words of its value (none if it is empty), `$$` is a dollar. An
// unknown variable is empty.
func (c Command) Argv(s Specifiers, env map[string]string) ([]string, error) {
	var argv []string
	for _, word := range c.Words {
		word, err := s.Expand(word)
		if err != nil {
			return nil, err
		}
		switch {
		case c.Literal:
			argv = append(argv, word)
		case isBareVariable(word):
			argv = append(argv, strings.Fields(env[word[1:]])...)
		default:
			argv = append(argv, expandVariables(word, env))
		}
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("nothing is left of the command after expansion")
	}
	return argv, nil
}

func isBareVariable(word string) bool {
	return len(word) > 1 && word[0] == '$' && IsVariable(word[1:])
}

// IsVariable tells whether name may be the name of an environment variable: letters, digits and `_`, no digit first.
func IsVariable(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		letter := c == '_' || (c|0x20 >= 'a' && c|0x20 <= 'z')
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// expandVariables replaces `${VAR}` and `$$` within one word.
func expandVariables(word string, env map[string]string) string {
	var out strings.Builder
	for {
		before, after, ok := strings.Cut(word, "$")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "{"), "}")
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			word = after[1:]
		case strings.HasPrefix(after, "{") && closed && IsVariable(name):
			out.WriteString(env[name])
			word = rest
		default:
			out.WriteByte('$')
			word = after
		}
	}
}
