package schema_test

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	jsoncodec "github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/schema"
)

// TestCheckOfWellKnownMessages: an endpoint may take one as it is, in the form that protojson has for it.
func TestCheckOfWellKnownMessages(t *testing.T) {
	t.Parallel()
	strict := jsoncodec.Strict()
	for _, m := range []proto.Message{
		&wrapperspb.BoolValue{}, &wrapperspb.StringValue{}, &wrapperspb.BytesValue{}, &wrapperspb.Int32Value{}, &wrapperspb.UInt32Value{},
		&wrapperspb.Int64Value{}, &wrapperspb.UInt64Value{}, &wrapperspb.FloatValue{}, &wrapperspb.DoubleValue{},
		&timestamppb.Timestamp{}, &durationpb.Duration{}, &fieldmaskpb.FieldMask{}, &emptypb.Empty{}, &anypb.Any{},
		&structpb.Struct{}, &structpb.Value{}, &structpb.ListValue{},
	} {
		name := string(m.ProtoReflect().Descriptor().Name())
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, taken := schema.OfMessage(m.ProtoReflect().Descriptor()), 0
			for _, v := range append([]string{`"1.5s"`, `"a,b"`, `{"a":{"a":null},"b":[1,{}]}`, `{"@type":""}`}, protoValues...) {
				proto.Reset(m)
				if err := strict.Unmarshal([]byte(v), m); err != nil {
					continue
				}
				taken++
				if problems := s.Check([]byte(v)); len(problems) > 0 {
					t.Errorf("%s: the decoder takes it; check: %v", v, problems)
				}
			}
			if taken == 0 {
				t.Error("the decoder takes no value: the test says nothing")
			}
		})
	}
}

// level is a byte that reads itself from text.
type level uint8

func (l *level) UnmarshalText(text []byte) error {
	*l = level(len(text))
	return nil
}

// TestCheckOfBytesThatReadThemselves: their slice is read from base64, and from an array of what an element reads.
func TestCheckOfBytesThatReadThemselves(t *testing.T) {
	t.Parallel()
	type request struct{ Levels []level }
	s, strict := schema.Of(reflect.TypeFor[request]()), jsoncodec.Strict()
	for _, body := range []string{`{"Levels":"AQI="}`, `{"Levels":["low","high"]}`, `{"Levels":[]}`} {
		if err := strict.Unmarshal([]byte(body), new(request)); err != nil {
			t.Fatalf("%s: the decoder: %v", body, err)
		}
		if problems := s.Check([]byte(body)); len(problems) > 0 {
			t.Errorf("%s: the decoder takes it; check: %v", body, problems)
		}
	}
}
