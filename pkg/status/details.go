package status

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Packed is an encoded message of protobuf beside its type, as google.protobuf.Any has them.
type Packed struct {
	// Type is the message's full name, "google.rpc.ErrorInfo". A type that is named by a URL of another host than
	// type.googleapis.com has the whole URL, without a scheme.
	Type string
	// Value is the encoded message.
	Value []byte
}

// host is what begins the URL of a type in an Any, unless something else does.
const host = "type.googleapis.com/"

// Pack makes one of an Any's type URL and value. value is retained.
func Pack(typeURL string, value []byte) Packed {
	return Packed{strings.TrimPrefix(typeURL, host), value}
}

// URL gives the type as an Any has it: "type.googleapis.com/google.rpc.ErrorInfo".
func (p Packed) URL() string {
	if strings.Contains(p.Type, "/") {
		return p.Type
	}
	return host + p.Type
}

// Name is the message's full name.
func (p Packed) Name() protoreflect.FullName {
	return protoreflect.FullName(p.Type[strings.LastIndexByte(p.Type, '/')+1:])
}

// Message decodes the message. Its type is found in [protoregistry.GlobalTypes], which knows those whose Go package is in the
// program; for others the error is [protoregistry.NotFound].
func (p Packed) Message() (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(p.Name())
	if err != nil {
		return nil, err
	}
	m := t.New().Interface()
	if err := proto.Unmarshal(p.Value, m); err != nil {
		return nil, fmt.Errorf("status: detail %s: %w", p.Type, err)
	}
	return m, nil
}

// With gives a copy of e that has details beside those of e: messages of protobuf that programs read, such as those of package
// google.golang.org/genproto/googleapis/rpc/errdetails. An error with more than some 2 KB of them arrives without the last, and says
// so in its text: they travel in headers. A message that does not encode, for text that is no UTF-8, is left out, and is the cause.
func (e *Error) With(details ...proto.Message) *Error {
	with := *e
	with.Details = slices.Clone(e.Details)
	for _, m := range details {
		value, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(m)
		if err != nil {
			with.cause = errors.Join(with.cause, fmt.Errorf("status: detail: %w", err))
			continue
		}
		with.Details = append(with.Details, Packed{string(m.ProtoReflect().Descriptor().FullName()), value})
	}
	return &with
}

// DetailOf gives the first detail of type M that the first *Error in err's chain has:
//
//	if info, ok := status.DetailOf[*errdetails.ErrorInfo](err); ok {
//
// It reports false where there is none, or none that decodes.
func DetailOf[M proto.Message](err error) (detail M, ok bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return detail, false
	}
	name := detail.ProtoReflect().Descriptor().FullName()
	for _, p := range e.Details {
		if p.Name() != name {
			continue
		}
		m := detail.ProtoReflect().New().Interface()
		if proto.Unmarshal(p.Value, m) == nil {
			return m.(M), true
		}
	}
	return detail, false
}

// From gives e as sender sends it: with the ID sender where it has none, and without its cause.
func (e *Error) From(sender string) *Error {
	if e.ID != "" {
		sender = e.ID
	}
	return &Error{ID: sender, Code: e.Code, Detail: e.Detail, Refused: e.Refused, Details: e.Details}
}

// Within gives e, or a copy of it whose JSON form has at most limit bytes: without some of the last details, which its text then says,
// and where that is not enough, with less of its text. A limit of less than some hundred bytes may be passed.
func (e *Error) Within(limit int) *Error {
	if len(e.AppendJSON(nil)) <= limit {
		return e
	}
	short := *e
	for n := len(e.Details) - 1; n >= 0; n-- {
		short.Details = e.Details[:n]
		short.Detail = strings.TrimSpace(fmt.Sprintf("%s (%d of %d details are left out, which are too large)", e.Detail, len(e.Details)-n, len(e.Details)))
		if len(short.AppendJSON(nil)) <= limit {
			return &short
		}
	}
	for size := len(e.Detail) / 2; ; size /= 2 {
		short.Detail = strings.ToValidUTF8(e.Detail[:size], "") + "..."
		if size == 0 || len(short.AppendJSON(nil)) <= limit {
			return &short
		}
	}
}

// appendDetails appends the details as JSON, in the form that errors of the Connect protocol have.
func appendDetails(dst []byte, details []Packed) []byte {
	dst = append(dst, `,"details":[`...)
	for i, p := range details {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(append(dst, `{"type":`...), p.Type), `,"value":"`...)
		dst = append(base64.RawStdEncoding.AppendEncode(dst, p.Value), `"}`...)
	}
	return append(dst, ']')
}

// packedList reads what appendDetails writes. What is not of that form is left out, as the error itself counts.
type packedList []Packed

func (l *packedList) UnmarshalJSON(text []byte) error {
	var items []json.RawMessage
	if json.Unmarshal(text, &items) != nil {
		return nil
	}
	for _, item := range items {
		var p struct{ Type, Value string }
		if json.Unmarshal(item, &p) != nil || p.Type == "" {
			continue
		}
		if value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(p.Value, "=")); err == nil {
			*l = append(*l, Pack(p.Type, value))
		}
	}
	return nil
}

// named appends the names of the details to an error's text.
func named(text string, details []Packed) string {
	for i, p := range details {
		if i == 0 {
			text += " (with details: " + p.Type
		} else {
			text += ", " + p.Type
		}
	}
	if len(details) > 0 {
		text += ")"
	}
	return text
}
