package jsonrpc_test

import (
	stdjson "encoding/json"
	"reflect"
	"testing"

	"google.golang.org/protobuf/runtime/protoimpl"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
)

// order is a protobuf message as generated code has it, whose tags are all that go-micro's codec looks at.
type order struct {
	OrderID string           `protobuf:"bytes,1,opt,name=order_id,json=orderId,proto3" json:"order_id,omitempty"`
	Total   int64            `protobuf:"varint,2,opt,name=total,proto3" json:"total,omitempty"`
	Parts   []uint64         `protobuf:"varint,3,rep,packed,name=parts,proto3" json:"parts,omitempty"`
	Stock   map[string]int64 `protobuf:"bytes,4,rep,name=stock,proto3" json:"stock,omitempty" protobuf_key:"bytes,1,opt,name=key,proto3" protobuf_val:"varint,2,opt,name=value,proto3"`
	Next    *order           `protobuf:"bytes,5,opt,name=next,proto3" json:"next,omitempty"`
	Rest    []*order         `protobuf:"bytes,6,rep,name=rest,proto3" json:"rest,omitempty"`
	Data    []byte           `protobuf:"bytes,7,opt,name=data,proto3" json:"data,omitempty"`
}

func (m *order) Reset()       { *m = order{} }
func (*order) String() string { return "order" }
func (*order) ProtoMessage()  {}

// TestMessagesOfGoMicro: what is written of a protobuf message is read by encoding/json, which is go-micro's, and by protojson.
func TestMessagesOfGoMicro(t *testing.T) {
	t.Parallel()
	want := &order{
		OrderID: "7", Total: 1<<53 + 1, Parts: []uint64{1<<64 - 1, 0}, Stock: map[string]int64{"total": -1 << 63}, Data: []byte("<"),
		Next: &order{Total: 7}, Rest: []*order{{Total: 8}, {OrderID: "<9>"}},
	}
	c := jsonrpc.New(json.Strict())
	text, err := c.Append([]byte("x"), protoimpl.X.ProtoMessageV2Of(want))
	if err != nil || text[0] != 'x' {
		t.Fatalf("%s, %v", text, err)
	}
	const form = `x{"data":"PA==","next":{"total":7},"order_id":"7","parts":[18446744073709551615,0],"rest":[{"total":8},{"order_id":"<9>"}],` +
		`"stock":{"total":-9223372036854775808},"total":9007199254740993}`
	if string(text) != form {
		t.Errorf("wrote %s", text)
	}
	var theirs, ours order
	if err := stdjson.Unmarshal(text[1:], &theirs); err != nil || !reflect.DeepEqual(&theirs, want) {
		t.Errorf("go-micro reads %+v, %v", &theirs, err)
	}
	if err := c.Unmarshal(text[1:], protoimpl.X.ProtoMessageV2Of(&ours)); err != nil || !reflect.DeepEqual(&ours, want) {
		t.Errorf("we read %+v, %v", &ours, err)
	}
	for m, form := range map[any]string{wrapperspb.Int64(7): `"7"`, durationpb.New(1): `"0.000000001s"`} {
		if text, err := c.Append(nil, m); err != nil || string(text) != form {
			t.Errorf("%v is written as %s, %v", m, text, err)
		}
	}
}
