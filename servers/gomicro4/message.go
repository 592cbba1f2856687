package main

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoimpl"
)

// Request is a protobuf message as generators made it.
type Request struct {
	Name  string `protobuf:"bytes,1,opt,name=name,proto3" json:"name,omitempty"`
	Count int64  `protobuf:"varint,2,opt,name=count,proto3" json:"count,omitempty"`
}

// Reset is of protobuf.
func (m *Request) Reset() { *m = Request{} }

// String is of protobuf.
func (m *Request) String() string { return fmt.Sprint(m.Name, m.Count) }

// ProtoMessage is of protobuf.
func (*Request) ProtoMessage() {}

// Response is a protobuf message.
type Response struct {
	Msg    string            `protobuf:"bytes,1,opt,name=msg,proto3" json:"msg,omitempty"`
	Seq    int64             `protobuf:"varint,2,opt,name=seq,proto3" json:"seq,omitempty"`
	Header map[string]string `protobuf:"bytes,3,rep,name=header,proto3" json:"header,omitempty" protobuf_key:"bytes,1,opt,name=key,proto3" protobuf_val:"bytes,2,opt,name=value,proto3"`
}

// Reset is of protobuf.
func (m *Response) Reset() { *m = Response{} }

// String is of protobuf.
func (m *Response) String() string { return fmt.Sprint(m.Msg, m.Seq, m.Header) }

// ProtoMessage is of protobuf.
func (*Response) ProtoMessage() {}

// The same messages without ProtoReflect, for which package protoimpl makes it.
type (
	oldRequest  Request
	oldResponse Response
)

func (m *oldRequest) Reset()          { *m = oldRequest{} }
func (m *oldRequest) String() string  { return (*Request)(m).String() }
func (*oldRequest) ProtoMessage()     {}
func (m *oldResponse) Reset()         { *m = oldResponse{} }
func (m *oldResponse) String() string { return (*Response)(m).String() }
func (*oldResponse) ProtoMessage()    {}

// ProtoReflect is of protobuf's second interface, which messages have since 2020.
func (m *Request) ProtoReflect() protoreflect.Message {
	return protoimpl.X.ProtoMessageV2Of((*oldRequest)(m)).ProtoReflect()
}

// ProtoReflect is of protobuf's second interface.
func (m *Response) ProtoReflect() protoreflect.Message {
	return protoimpl.X.ProtoMessageV2Of((*oldResponse)(m)).ProtoReflect()
}
