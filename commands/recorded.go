package commands

import (
	"slices"
	"strings"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/server"
)

// What follows reads go-micro's registry records, which its nodes have in place of a Debug.Info: each endpoint with the tree of the
// fields of its request and of its answer (go-micro's server/extractor.go). The tree is three levels deep, and says less than it seems
// to: see recordedObject.

// recordedEndpoints makes endpoints of the registry's records, without those that are subscriptions.
func recordedEndpoints(nodes []registry.Node) []server.Endpoint {
	out := []server.Endpoint{}
	for _, n := range nodes {
		for _, e := range endpointsOf(n) {
			if !slices.ContainsFunc(out, func(o server.Endpoint) bool { return o.Name == e.Name }) {
				out = append(out, recordedEndpoint(e))
			}
		}
	}
	return out
}

func recordedEndpoint(e registry.Endpoint) server.Endpoint {
	out := server.Endpoint{Name: e.Name, Kind: server.Kind(kindOf(e)), RequestType: typeOf(e.Request), ResponseType: typeOf(e.Response), Metadata: e.Metadata}
	out.Request, out.Response = recordedSchema(e.Request), recordedSchema(e.Response)
	if out.Kind != recordedStream {
		return out
	}
	if out.RequestType == "Context" { // of the method (ctx, stream): its messages are not in its types
		out.RequestType, out.Request = "", nil
	}
	out.ResponseType, out.Response = "", nil // the name of the stream's interface
	return out
}

// recordedStream is the kind of an endpoint of which no more is known than that it streams.
const recordedStream = server.Kind("stream")

// recordedSubscriptions gives the topics that the nodes' records name, each once.
func recordedSubscriptions(nodes []registry.Node) (out []server.SubscriptionInfo) {
	for _, n := range nodes {
		for _, e := range n.Endpoints {
			s := server.SubscriptionInfo{Topic: e.Metadata[registry.MetaTopic]}
			if isSubscriber(e) && s.Topic != "" && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// isSubscriber reports whether an endpoint's record is of a handler of messages, which go-micro lists among the endpoints: it cannot be
// called.
func isSubscriber(e registry.Endpoint) bool { return e.Metadata["subscriber"] == "true" }

// recordedSchema gives what a record tells of the JSON form of a message; nil where that is nothing.
func recordedSchema(v *registry.Value) *schema.Schema {
	if v == nil || len(v.Values) == 0 || v.Type == "Frame" { // bytes.Frame is the body as it came
		return nil
	}
	return recordedObject(v)
}

// recordedObject gives the schema of a struct. Whatever leads to a field of which the record has not the name in JSON makes it one
// that takes further fields.
func recordedObject(v *registry.Value) *schema.Schema {
	s := &schema.Schema{Title: v.Type, Type: []string{"object"}, AdditionalProperties: &schema.Schema{Never: true}}
	message := slices.ContainsFunc(v.Values, func(f *registry.Value) bool { return f.Type == "MessageState" })
	seen := map[string]bool{}
	for _, f := range v.Values {
		switch {
		case message && isMessageState(f):
		case seen[f.Name]:
			s.AdditionalProperties = nil
		case f.Name == f.Type && recordedScalar(f.Type) != nil, isOneof(f):
			s.AdditionalProperties = nil // the type's name stands for that of a field without a tag
		default:
			if f.Name == f.Type { // a struct within; it may be one whose fields stand with ours, or have another name
				s.AdditionalProperties = nil
			}
			seen[f.Name] = true
			field := recordedField(f)
			field.Alias = lowerCamel(f.Name)
			s.Properties = append(s.Properties, schema.Property{Name: f.Name, Schema: field})
		}
	}
	return s
}

// isMessageState reports whether a field is of the state that messages of google.golang.org/protobuf keep. Releases of go-micro before
// 3.0 list it, by the name of the field or of its type.
func isMessageState(f *registry.Value) bool {
	switch f.Name {
	case "state", "sizeCache", "unknownFields", "weakFields", "extensionFields", "MessageState":
		return true
	}
	return f.Name == f.Type && f.Type == "int32" // sizeCache
}

// isOneof reports whether a field is what protoc-gen-go makes of a oneof: an interface isMessage_Field.
func isOneof(f *registry.Value) bool {
	return strings.HasPrefix(f.Type, "is") && strings.Contains(f.Type, "_") && len(f.Values) == 0
}

// recordedField gives the schema of a field by its type's name: any value, where that is none that is known.
func recordedField(f *registry.Value) *schema.Schema {
	element, list := strings.CutPrefix(f.Type, "[]")
	switch scalar := recordedScalar(element); {
	case list && element == "uint8":
		return &schema.Schema{Type: []string{"string"}, ContentEncoding: "base64"}
	case list && scalar != nil:
		return &schema.Schema{Type: []string{"array"}, Items: scalar}
	case list:
		return &schema.Schema{Type: []string{"array"}, Items: &schema.Schema{Title: element}}
	case scalar != nil:
		return scalar
	case len(f.Values) > 0 && !slices.Contains(ownForms, f.Type):
		return recordedObject(f)
	}
	return &schema.Schema{Title: f.Type}
}

// ownForms are structs whose JSON is not that of their fields: of the standard library, and protobuf's well-known types.
var ownForms = []string{"Time", "Int", "Float", "Rat", "Timestamp", "Duration", "Any", "Struct", "Value", "ListValue", "FieldMask", "BoolValue",
	"StringValue", "BytesValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value", "FloatValue", "DoubleValue"}

// recordedScalar gives the schema of one of Go's own types; nil of another.
func recordedScalar(name string) *schema.Schema {
	switch name {
	case "string":
		return &schema.Schema{Type: []string{"string"}}
	case "bool":
		return &schema.Schema{Type: []string{"boolean"}}
	case "float32":
		return &schema.Schema{Type: []string{"number"}, Format: "float"}
	case "float64":
		return &schema.Schema{Type: []string{"number"}, Format: "double"}
	case "int", "uint":
		return &schema.Schema{Type: []string{"integer"}, Format: name + "64"}
	case "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64":
		return &schema.Schema{Type: []string{"integer"}, Format: name}
	}
	return nil
}

// lowerCamel gives protojson's name of a protobuf field, which is read beside the one in the tag; empty where that is the same.
func lowerCamel(name string) string {
	if !strings.Contains(name, "_") {
		return ""
	}
	var b strings.Builder
	upper := false
	for _, c := range []byte(name) {
		switch {
		case c == '_':
			upper = true
			continue
		case upper && c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		}
		upper = false
		b.WriteByte(c)
	}
	return b.String()
}
