// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/plan"
)

// schema is what of a JSON schema docs/openapi.yaml uses.
type schema struct {
	Ref        string            `yaml:"$ref,omitempty"`
	Type       string            `yaml:"type,omitempty"`
	Format     string            `yaml:"format,omitempty"`
	Required   []string          `yaml:"required,flow,omitempty"`
	Properties map[string]schema `yaml:"properties,omitempty"`
	Items      *schema           `yaml:"items,omitempty"`
	Values     *schema           `yaml:"additionalProperties,omitempty"`
}

// operation is a method of a path.
type operation struct {
	RequestBody *content           `yaml:"requestBody"`
	Responses   map[string]content `yaml:"responses"`
}

type content struct {
	Content map[string]struct {
		Schema schema `yaml:"schema"`
	} `yaml:"content"`
}

type openAPI struct {
	OpenAPI    string                          `yaml:"openapi"`
	Paths      map[string]map[string]operation `yaml:"paths"`
	Components struct {
		Schemas map[string]schema `yaml:"schemas"`
	} `yaml:"components"`
}

func readOpenAPI(t *testing.T) *openAPI {
	t.Helper()
	text, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	api := new(openAPI)
	if err := yaml.Unmarshal(text, api); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(api.OpenAPI, "3.") {
		t.Fatalf("version %q", api.OpenAPI)
	}
	return api
}

// TestOpenAPIPaths wants each path and method in the description and in the server.
func TestOpenAPIPaths(t *testing.T) {
	var described []string
	for path, methods := range readOpenAPI(t).Paths {
		for method := range methods {
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(described)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(new(Server).routes())), described); diff != "" {
		t.Errorf("-server +docs/openapi.yaml:\n%s", diff)
	}
}

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// TestOpenAPISchemas wants each schema to be what the type of that name is.
func TestOpenAPISchemas(t *testing.T) {
	described := readOpenAPI(t).Components.Schemas
	for name, s := range described {
		for key := range s.Properties {
			if !snakeCase.MatchString(key) {
				t.Errorf("%s.%s is not in snake_case", name, key)
			}
		}
	}
	want := map[string]schema{}
	for _, v := range []any{Status{}, plan.Running{}, Config{}, Proposal{}, Planned{}, target.SessionEnd{}, LogLevel{}, Diagnosis{}, handoff.Report{}, problem{}} {
		schemaOf(reflect.TypeOf(v), want)
	}
	if diff := cmp.Diff(want, described); diff != "" {
		text, err := yaml.Marshal(want)
		t.Errorf("-types +docs/openapi.yaml:\n%s\nthe types are, %v:\n%s", diff, err, text)
	}
}

// schemaName is the name of a type's schema.
func schemaName(t reflect.Type) string {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if strings.HasSuffix(t.PkgPath(), "/plan") {
		return "Plan" + name // plan.Target is not target.TargetStatus
	}
	return name
}

// schemaOf describes a type as encoding/json writes it. Structs are in named.
func schemaOf(t reflect.Type, named map[string]schema) schema {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return schema{Type: "string", Format: "date-time"}
	case t == reflect.TypeFor[netip.AddrPort]() || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return schema{Type: "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), named)
	case reflect.Slice, reflect.Array:
		return schema{Type: "array", Items: new(schemaOf(t.Elem(), named))}
	case reflect.Map:
		return schema{Type: "object", Values: new(schemaOf(t.Elem(), named))}
	case reflect.String:
		return schema{Type: "string"}
	case reflect.Bool:
		return schema{Type: "boolean"}
	case reflect.Struct:
		name := schemaName(t)
		if _, ok := named[name]; !ok {
			named[name] = schema{}
			s := schema{Type: "object", Properties: map[string]schema{}}
			fieldsOf(t, &s, named)
			slices.Sort(s.Required)
			named[name] = s
		}
		return schema{Ref: "#/components/schemas/" + name}
	}
	return schema{Type: "integer"}
}

func fieldsOf(t reflect.Type, s *schema, named map[string]schema) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			fieldsOf(f.Type, s, named)
			continue
		case name == "":
			name = f.Name
			fallthrough
		case f.IsExported() && name != "-":
			s.Properties[name] = schemaOf(f.Type, named)
			if options != "omitempty" && options != "omitzero" {
				s.Required = append(s.Required, name)
			}
		}
	}
}

// validate lists where a value is not as the schema says.
func (api *openAPI) validate(v any, s schema, at string) []string {
	if s.Ref != "" {
		s = api.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	var faults []string
	is := ""
	switch v := v.(type) {
	case map[string]any:
		is = "object"
		for _, key := range s.Required {
			if _, ok := v[key]; !ok {
				faults = append(faults, at+"."+key+" is missing")
			}
		}
		for key, value := range v {
			p, ok := s.Properties[key]
			if s.Values != nil {
				p, ok = *s.Values, true
			}
			if !ok {
				faults = append(faults, at+"."+key+" is not described")
				continue
			}
			faults = append(faults, api.validate(value, p, at+"."+key)...)
		}
	case []any:
		is = "array"
		for i, value := range v {
			if s.Items != nil {
				faults = append(faults, api.validate(value, *s.Items, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	case string:
		is = "string"
	case bool:
		is = "boolean"
	case float64:
		is = "integer"
	}
	if is != s.Type {
		faults = append(faults, fmt.Sprintf("%s is of type %q, want %q", at, is, s.Type))
	}
	return faults
}

// TestOpenAPIResponses asks a live server for everything.
func TestOpenAPIResponses(t *testing.T) {
	api := readOpenAPI(t)
	report := handoff.Report{Generation: 2, Phases: []handoff.Phase{{Name: "freeze"}}, Plan: []string{"x"}}
	_, c := testServer(t, &fakeDaemon{
		status: Status{Config: "/etc/a.yaml", Upgrades: []handoff.Report{report}, Status: target.Status{
			Portals:  []target.PortalStatus{{Address: netip.MustParseAddrPort("127.0.0.1:3260")}},
			Targets:  []target.TargetStatus{{LUNs: []target.LUNStatus{{}}, Accounts: []string{"a"}, ACL: []string{"ALL"}, SessionTSIH: []uint16{1}}},
			Sessions: []target.SessionStatus{{Connections: []target.ConnectionStatus{{Local: netip.MustParseAddrPort("127.0.0.1:3260"), Remote: netip.MustParseAddrPort("127.0.0.1:1")}}}},
		}},
		upgrade: func(context.Context) (handoff.Report, error) { return report, nil },
		end: func(_ context.Context, tsih uint16, _ time.Duration) (target.SessionEnd, error) {
			if tsih == 2 {
				return target.SessionEnd{}, fmt.Errorf("no")
			}
			return target.SessionEnd{TSIH: tsih, Rejected: new(time.Now())}, nil
		},
	})
	asked := map[string]bool{}
	for _, q := range []struct{ method, path, query, body string }{
		{"GET", "/v1/status", "", ""},
		{"GET", "/v1/running", "", ""},
		{"POST", "/v1/running", "", `[]`},
		{"POST", "/v1/running", "", `[{"mode": "target", "op": "delete", "tid": 1}]`},
		{"POST", "/v1/running", "", `[{"mod": "target"}]`},
		{"GET", "/v1/config", "?secrets=true", ""},
		{"GET", "/v1/config", "?secrets=perhaps", ""},
		{"POST", "/v1/plan", "", `{"config": "a"}`},
		{"POST", "/v1/plan", "", `{"config": ""}`},
		{"POST", "/v1/plan", "", `{"konfig": ""}`},
		{"PUT", "/v1/config", "", `{"config": "a", "revision": "1"}`},
		{"PUT", "/v1/config", "", `{"config": "a", "revision": "2"}`},
		{"PUT", "/v1/config", "", `{"config": "a"}`},
		{"PUT", "/v1/config", "", `{"config": "", "revision": "1"}`},
		{"DELETE", "/v1/sessions/{tsih}", "1", ""},
		{"DELETE", "/v1/sessions/{tsih}", "2", ""},
		{"DELETE", "/v1/sessions/{tsih}", "x", ""},
		{"GET", "/v1/log-level", "", ""},
		{"PUT", "/v1/log-level", "", `{"level": "debug"}`},
		{"PUT", "/v1/log-level", "", `{"level": "chatty"}`},
		{"PUT", "/v1/log-level", "", `{"levle": "debug"}`},
		{"GET", "/v1/diagnosis", "", ""},
		{"POST", "/v1/upgrade", "?force=true", ""},
		{"POST", "/v1/upgrade", "?timeout=x", ""},
	} {
		url := strings.TrimSuffix(q.path, "{tsih}") + q.query
		name := fmt.Sprintf("%s %s %s", q.method, url, q.body)
		resp, err := c.http.Do(t.Context(), q.method, url, []byte(q.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		described, ok := api.Paths[q.path][strings.ToLower(q.method)].Responses[fmt.Sprint(resp.StatusCode)]
		if !ok {
			t.Errorf("%s: status %d is not described", name, resp.StatusCode)
			continue
		}
		var answer any
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&answer); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if faults := api.validate(answer, described.Content["application/json"].Schema, ""); len(faults) > 0 {
			t.Errorf("%s: %v in\n%s", name, faults, body)
		}
		asked[q.method+" "+q.path] = true
	}
	for route := range new(Server).routes() {
		if !asked[route] {
			t.Errorf("%s was not tried", route)
		}
	}
}

// TestOpenAPIValidates is the control: the check finds what is wrong.
func TestOpenAPIValidates(t *testing.T) {
	api := readOpenAPI(t)
	for text, want := range map[string]int{
		`{"revision": "1", "config": ""}`:                  0,
		`{"revision": 1, "config": ""}`:                    1,
		`{"config": ""}`:                                   1,
		`{"revision": "1", "config": "", "x": [], "y": 1}`: 2,
	} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if faults := api.validate(v, schema{Ref: "#/components/schemas/Config"}, ""); len(faults) != want {
			t.Errorf("%s: %v, want %d faults", text, faults, want)
		}
	}
}
