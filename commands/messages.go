package commands

import (
	"bytes"
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/cb02dfca/micro/pkg/codec"
	codecproto "github.com/cb02dfca/micro/pkg/codec/proto"
)

// messages is the form of protobuf messages that only descriptors tell of: typed, and shown, as JSON.
type messages struct {
	request, response protoreflect.MessageDescriptor
	types             *dynamicpb.Types // what an Any may hold; nil where nothing is known
}

var _ codec.Codec = (*messages)(nil)

// formOf gives the form of a method's messages.
func formOf(m protoreflect.MethodDescriptor) *messages {
	return &messages{request: m.Input(), response: m.Output(), types: typesOf(m.ParentFile())}
}

// ContentType is protobuf's.
func (*messages) ContentType() string { return codecproto.ContentType }

// Append encodes v, the JSON of a request.
func (f *messages) Append(dst []byte, v any) ([]byte, error) {
	text, ok := v.(json.RawMessage)
	if !ok {
		return dst, codec.Unsupported("%T is no JSON", v)
	}
	m := dynamicpb.NewMessage(f.request)
	if err := (protojson.UnmarshalOptions{Resolver: f.types}).Unmarshal(text, m); err != nil {
		return dst, plainProto(err)
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(dst, m)
	if err != nil {
		return dst, plainProto(err)
	}
	return out, nil
}

// Unmarshal gives the JSON of an answer.
func (f *messages) Unmarshal(data []byte, v any) error {
	into, ok := v.(*json.RawMessage)
	if !ok {
		return codec.Unsupported("%T is no JSON", v)
	}
	m := dynamicpb.NewMessage(f.response)
	if err := (proto.UnmarshalOptions{Resolver: f.types, RecursionLimit: codecproto.MaxDepth}).Unmarshal(data, m); err != nil {
		return plainProto(err)
	}
	text, err := protojson.MarshalOptions{Resolver: f.types}.Marshal(m)
	if err != nil {
		return plainProto(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil { // protojson puts spaces in at random
		return err
	}
	*into = b.Bytes()
	return nil
}

// plainProto takes out what package protobuf puts into its errors: its name, and at random a no-break space.
func plainProto(err error) error { return &protoError{err} }

type protoError struct{ error }

func (e *protoError) Error() string {
	return strings.TrimPrefix(strings.ReplaceAll(e.error.Error(), "\u00a0", " "), "proto: ")
}

func (e *protoError) Unwrap() error { return e.error }

// typesOf gives the types of a file, and of what it imports: what the messages of an Any, and extensions, may be.
func typesOf(fd protoreflect.FileDescriptor) *dynamicpb.Types {
	files := new(protoregistry.Files)
	addFile(files, fd)
	return dynamicpb.NewTypes(files)
}

// addFile adds a file, with those that it imports. One whose names are taken is left out: no message of it can be told.
func addFile(files *protoregistry.Files, fd protoreflect.FileDescriptor) {
	if _, err := files.FindFileByPath(fd.Path()); err == nil || fd.IsPlaceholder() {
		return
	}
	_ = files.RegisterFile(fd)
	for i := range fd.Imports().Len() {
		addFile(files, fd.Imports().Get(i).FileDescriptor)
	}
}
