package messages_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/santhosh-tekuri/jsonschema/v6"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// contract is one message in its four forms: schema, example, struct and decoder.
type contract struct {
	name   string
	of     reflect.Type
	decode func([]byte) (any, bool, error)
}

func decoding[T any](decode func([]byte) (T, bool, error)) func([]byte) (any, bool, error) {
	return func(b []byte) (any, bool, error) { m, known, err := decode(b); return m, known, err }
}

func order(b []byte) (messages.Order, bool, error) {
	o, err := messages.DecodeOrder(b)
	return o, err == nil, err
}

var contracts = []contract{
	{messages.TypeModuleStatus, reflect.TypeFor[messages.ModuleStatus](), decoding(messages.DecodeModuleStatus)},
	{messages.TypeUpgradeRequest, reflect.TypeFor[messages.OverseerMessage](), decoding(messages.DecodeOverseerMessage)},
	{messages.TypeChanged, reflect.TypeFor[messages.OverseerMessage](), decoding(messages.DecodeOverseerMessage)},
	{messages.TypeMilestoneOrder, reflect.TypeFor[messages.Order](), decoding(order)},
	{messages.TypeMilestoneResult, reflect.TypeFor[messages.Result](), decoding(messages.DecodeResult)},
}

type object = map[string]any

func read(path string) object {
	GinkgoHelper()
	raw, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	var o object
	Expect(json.Unmarshal(raw, &o)).To(Succeed())
	return o
}

func (c contract) schema() object  { return read("schemas/" + c.name + ".json") }
func (c contract) example() object { return read("examples/" + c.name + ".json") }

// accepts says whether the schema and whether the decoder take a body as a message of this kind.
func (c contract) accepts(body []byte) (schema, decoder bool) {
	GinkgoHelper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiled, err := compiler.Compile("schemas/" + c.name + ".json")
	Expect(err).NotTo(HaveOccurred())
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	schema = err == nil && compiled.Validate(value) == nil
	_, known, err := c.decode(body)
	if err != nil {
		Expect(errors.Is(err, messages.ErrInvalid)).To(BeTrue(), err.Error())
	}
	return schema, known && err == nil
}

func encode(v any) []byte {
	GinkgoHelper()
	raw, err := json.Marshal(v)
	Expect(err).NotTo(HaveOccurred())
	return raw
}

// shape describes a Go type as the schemas do: properties of objects and the JSON type of each, in depth.
func shape(t reflect.Type) any {
	switch {
	case t.Kind() == reflect.Pointer:
		return shape(t.Elem())
	case t == reflect.TypeFor[time.Time]():
		return "string"
	case t == reflect.TypeFor[json.RawMessage]():
		return "any"
	case t.Kind() == reflect.Struct:
		properties := object{}
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			properties[name] = shape(t.Field(i).Type)
		}
		return properties
	case t.Kind() == reflect.Slice:
		return []any{shape(t.Elem())}
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return "integer"
	}
	return t.String()
}

// stated is the shape that a schema states.
func stated(root, s object) any {
	if ref, ok := s["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/$defs/")
		return stated(root, root["$defs"].(object)[name].(object))
	}
	if p, ok := s["properties"].(object); ok {
		properties := object{}
		for name, sub := range p {
			properties[name] = stated(root, sub.(object))
		}
		return properties
	}
	if items, ok := s["items"].(object); ok {
		return []any{stated(root, items)}
	}
	if _, ok := s["const"]; ok {
		return "string"
	}
	if _, ok := s["enum"]; ok {
		return "string"
	}
	if t, ok := s["type"].(string); ok {
		return t
	}
	return "any"
}

// merge unites the shapes of two objects.
func merge(a, b any) any {
	left, ok := a.(object)
	right, also := b.(object)
	if !ok || !also {
		return a
	}
	for name, sub := range right {
		if known, ok := left[name]; ok {
			left[name] = merge(known, sub)
		} else {
			left[name] = sub
		}
	}
	return left
}

func clone(o object) object {
	GinkgoHelper()
	var c object
	Expect(json.Unmarshal(encode(o), &c)).To(Succeed())
	return c
}

// wrong is a value of another JSON type.
func wrong(v any) any {
	if _, ok := v.(string); ok {
		return 7
	}
	return "seven"
}

var _ = Describe("Each message", func() {
	It("has a struct with exactly the properties of its schemas, of the same types", func() {
		byStruct := map[reflect.Type]any{}
		for _, c := range contracts {
			s := c.schema()
			byStruct[c.of] = merge(stated(s, s), byStruct[c.of]) // upgrade request and change share one struct
		}
		for t, want := range byStruct {
			Expect(shape(t)).To(Equal(want), t.String())
		}
	})

	for _, c := range contracts {
		Describe(c.name, func() {
			It("has an example that shows every property, is valid, and survives decoding and encoding", func() {
				schema, decoder := c.accepts(encode(c.example()))
				Expect(schema).To(BeTrue())
				Expect(decoder).To(BeTrue())
				m, _, err := c.decode(encode(c.example()))
				Expect(err).NotTo(HaveOccurred())
				Expect(encode(m)).To(MatchJSON(encode(c.example())))
				for name := range c.schema()["properties"].(object) {
					Expect(c.example()).To(HaveKey(name))
				}
			})

			It("means the same by required in schema and decoder", func() {
				for name := range c.example() {
					o := c.example()
					delete(o, name)
					schema, decoder := c.accepts(encode(o))
					Expect(decoder).To(Equal(schema), "without "+name)
				}
				required := c.schema()["required"].([]any)
				for _, name := range required {
					o := c.example()
					delete(o, name.(string))
					schema, _ := c.accepts(encode(o))
					Expect(schema).To(BeFalse(), name.(string))
				}
			})

			It("refuses a wrong type of any property in schema and decoder", func() {
				properties := c.schema()["properties"].(object)
				for name, v := range c.example() {
					if stated(c.schema(), properties[name].(object)) == "any" {
						continue
					}
					o := clone(c.example())
					o[name] = wrong(v)
					schema, decoder := c.accepts(encode(o))
					Expect([]bool{schema, decoder}).To(Equal([]bool{false, false}), name)
				}
			})

			It("refuses an empty value of a required string in schema and decoder alike", func() {
				for _, name := range c.schema()["required"].([]any) {
					o := clone(c.example())
					if _, isText := o[name.(string)].(string); !isText {
						continue
					}
					o[name.(string)] = ""
					schema, decoder := c.accepts(encode(o))
					Expect([]bool{schema, decoder}).To(Equal([]bool{false, false}), name.(string))
				}
			})

			It("keeps to its limits of length in schema and decoder alike", func() {
				for name, p := range c.schema()["properties"].(object) {
					limit, ok := p.(object)["maxLength"].(float64)
					if !ok {
						continue
					}
					for extra, want := range map[int]bool{0: true, 1: false} {
						o := clone(c.example())
						o[name] = strings.Repeat("x", int(limit)+extra)
						schema, decoder := c.accepts(encode(o))
						Expect([]bool{schema, decoder}).To(Equal([]bool{want, want}), "%s of %d", name, int(limit)+extra)
					}
				}
			})

			It("takes unknown fields, as a newer neighbour sends them", func() {
				o := clone(c.example())
				o["from_the_future"] = object{"a": 1}
				schema, decoder := c.accepts(encode(o))
				Expect([]bool{schema, decoder}).To(Equal([]bool{true, true}))
			})

			It("refuses what is no object, and what is too large", func() {
				for _, body := range []string{"", "7", `"x"`, "[]", "null", "{"} {
					schema, decoder := c.accepts([]byte(body))
					Expect([]bool{schema, decoder}).To(Equal([]bool{false, false}), body)
				}
				o := clone(c.example())
				o["padding"] = strings.Repeat("x", messages.MaxBody)
				_, decoder := c.accepts(encode(o))
				Expect(decoder).To(BeFalse())
			})

			It("describes every property for people", func() {
				for name, p := range c.schema()["properties"].(object) {
					sub := p.(object)
					_, fixed := sub["const"]
					_, listed := sub["enum"]
					_, refers := sub["$ref"]
					_, nested := sub["properties"]
					Expect(fixed || listed || refers || nested || sub["description"] != nil).To(BeTrue(), name)
				}
			})
		})
	}

	It("has a file for every kind, and no file without a kind", func() {
		names := []string{}
		for _, c := range contracts {
			names = append(names, c.name+".json")
		}
		slices.Sort(names)
		for _, dir := range []string{"schemas", "examples"} {
			entries, err := os.ReadDir(dir)
			Expect(err).NotTo(HaveOccurred())
			found := []string{}
			for _, e := range entries {
				found = append(found, e.Name())
			}
			Expect(found).To(Equal(names), dir)
		}
	})
})
