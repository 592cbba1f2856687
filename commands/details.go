package commands

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // the details that gRPC's servers send most
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cb02dfca/micro/pkg/status"
)

// errorDetail is a detail of a service's error as it is shown.
type errorDetail struct {
	text string          // a line: the type, and the message as JSON or its bytes in base64
	json json.RawMessage // an Any's JSON: "@type", and the message's fields or "value" in base64
}

// MarshalJSON gives the JSON form.
func (d errorDetail) MarshalJSON() ([]byte, error) { return d.json, nil }

// errorDetails shows the details of an error, whose types are those in the program and those that descriptors told of.
func (in *invocation) errorDetails(st *status.Error) []errorDetail {
	var out []errorDetail
	for _, p := range st.Details {
		d, err := in.knownDetail(p)
		if err != nil {
			value := base64.StdEncoding.EncodeToString(p.Value)
			d.text = p.URL() + " " + value
			d.json, _ = json.Marshal(struct { // two texts
				Type  string `json:"@type"`
				Value string `json:"value"`
			}{p.URL(), value})
		}
		out = append(out, d)
	}
	return out
}

// knownDetail shows a detail whose type is known.
func (in *invocation) knownDetail(p status.Packed) (d errorDetail, err error) {
	types := detailTypes{}
	if in.described != nil && in.described.types != nil {
		types.more = in.described.types
	}
	t, err := types.FindMessageByName(p.Name())
	if err != nil {
		return d, err
	}
	m := t.New().Interface()
	if err := (proto.UnmarshalOptions{Resolver: types}).Unmarshal(p.Value, m); err != nil {
		return d, err
	}
	o := protojson.MarshalOptions{Resolver: types}
	bare, err := o.Marshal(m)
	if err != nil {
		return d, err
	}
	whole, err := o.Marshal(&anypb.Any{TypeUrl: p.URL(), Value: p.Value})
	if err != nil {
		return d, err
	}
	var b, w bytes.Buffer // protojson puts spaces in at random
	if err := errors.Join(json.Compact(&b, bare), json.Compact(&w, whole)); err != nil {
		return d, err
	}
	return errorDetail{p.Type + " " + b.String(), w.Bytes()}, nil
}

// detailTypes finds types in the program, and then in more.
type detailTypes struct {
	more interface {
		protoregistry.MessageTypeResolver
		protoregistry.ExtensionTypeResolver
	}
}

func (t detailTypes) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if m, err := protoregistry.GlobalTypes.FindMessageByName(name); err == nil || t.more == nil {
		return m, err
	}
	return t.more.FindMessageByName(name)
}

func (t detailTypes) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if m, err := protoregistry.GlobalTypes.FindMessageByURL(url); err == nil || t.more == nil {
		return m, err
	}
	return t.more.FindMessageByURL(url)
}

func (t detailTypes) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	if x, err := protoregistry.GlobalTypes.FindExtensionByName(name); err == nil || t.more == nil {
		return x, err
	}
	return t.more.FindExtensionByName(name)
}

func (t detailTypes) FindExtensionByNumber(name protoreflect.FullName, n protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	if x, err := protoregistry.GlobalTypes.FindExtensionByNumber(name, n); err == nil || t.more == nil {
		return x, err
	}
	return t.more.FindExtensionByNumber(name, n)
}
