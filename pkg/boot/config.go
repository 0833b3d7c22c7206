package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// envPrefix starts every environment variable that overrides a key.
const envPrefix = "OPENAPERTURE_"

// EnvName is the environment variable that overrides a key: broker.url becomes
// OPENAPERTURE_BROKER_URL.
func EnvName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// Load reads defaults, then the YAML file (none if path is ""), then the
// environment, and validates all but the secrets. A key that the type does not have is an error that
// names it. Empty environment variables count as unset; lists are separated by
// commas there, other structured values are JSON.
func Load[C Config](defaults C, path string) (C, error) {
	cfg := defaults
	v := viper.New()
	if path != "" {
		v.SetConfigFile(path)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return cfg, fmt.Errorf("read configuration %s: %s", path, oneLine(err))
		}
	}
	if err := overrideFromEnv(v, reflect.TypeOf(defaults)); err != nil {
		return cfg, err
	}
	var seen mapstructure.Metadata
	err := v.Unmarshal(&cfg, func(d *mapstructure.DecoderConfig) {
		d.Metadata = &seen // what UnmarshalExact does, but with the keys apart for a clear line
		d.DecodeHook = mapstructure.ComposeDecodeHookFunc(strictDuration,
			mapstructure.StringToTimeDurationHookFunc(), trimmedList, joinedSecret)
	})
	if err != nil {
		return cfg, fmt.Errorf("configuration %s: %s", path, oneLine(err))
	}
	if len(seen.Unused) > 0 {
		sort.Strings(seen.Unused)
		return cfg, fmt.Errorf("configuration %s: unknown key %s", path, strings.Join(seen.Unused, ", "))
	}
	if err := cfg.BaseConfig().Validate(); err != nil {
		return cfg, fmt.Errorf("configuration %s: %s", path, oneLine(err))
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("configuration %s: %s", path, oneLine(err))
	}
	return cfg, nil
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", " ")), " ")
}

// strictDuration refuses bare numbers: 30 would silently mean 30 nanoseconds.
func strictDuration(from, to reflect.Type, value any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() || from.Kind() == reflect.String || from == to {
		return value, nil
	}
	return nil, fmt.Errorf("%v is no duration: write a unit, such as 30s", value)
}

// trimmedList splits "a, b" for lists of strings, as environment variables write them.
func trimmedList(from, to reflect.Type, value any) (any, error) {
	if from.Kind() != reflect.String || to.Kind() != reflect.Slice || to.Elem().Kind() == reflect.Uint8 {
		return value, nil
	}
	list := []string{}
	for part := range strings.SplitSeq(value.(string), ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list, nil
}

// joinedSecret joins a list of texts into one secret, with commas, as the environment would write it: a secret may be
// several addresses, each with a password.
func joinedSecret(from, to reflect.Type, value any) (any, error) {
	list, ok := value.([]any)
	if !ok || to != reflect.TypeFor[Secret]() {
		return value, nil
	}
	parts := make([]string, len(list))
	for i, part := range list {
		text, ok := part.(string)
		if !ok {
			return nil, errors.New("want a text, or a list of texts") // without the value, which may be secret
		}
		parts[i] = text
	}
	return strings.Join(parts, ","), nil
}

// overrideFromEnv sets every key of the type that has a variable, whether or not
// the file mentions the key.
func overrideFromEnv(v *viper.Viper, config reflect.Type) error {
	for _, leaf := range leaves(config, "") {
		text := os.Getenv(EnvName(leaf.key))
		if text == "" {
			continue
		}
		value, err := envValue(text, leaf.kind)
		if err != nil {
			return fmt.Errorf("environment %s: %s", EnvName(leaf.key), oneLine(err))
		}
		v.Set(leaf.key, value)
	}
	return nil
}

func envValue(text string, t reflect.Type) (any, error) {
	structured := t.Kind() == reflect.Map ||
		t.Kind() == reflect.Slice && (t.Elem().Kind() == reflect.Struct || t.Elem().Kind() == reflect.Map)
	if !structured {
		return text, nil
	}
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return nil, fmt.Errorf("want JSON: %w", err)
	}
	return value, nil
}

type leaf struct {
	key  string
	kind reflect.Type
}

// leaves lists the keys of a configuration type by its mapstructure tags.
func leaves(t reflect.Type, prefix string) []leaf {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var list []leaf
	for field := range t.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("mapstructure"), ",")
		if name == "-" || !field.IsExported() {
			continue
		}
		if name == "" {
			name = field.Name
		}
		key, inner := prefix+strings.ToLower(name), field.Type
		for inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case strings.Contains(options, "squash"):
			list = append(list, leaves(inner, prefix)...)
		case inner.Kind() == reflect.Struct:
			list = append(list, leaves(inner, key+".")...)
		default:
			list = append(list, leaf{key, inner})
		}
	}
	return list
}
