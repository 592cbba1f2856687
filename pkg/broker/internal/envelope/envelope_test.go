package envelope_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/envelope"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// The keys are those of go-micro's services, which look them up by case.
func TestForm(t *testing.T) {
	t.Parallel()
	m := &broker.Message{Topic: "orders", Header: metadata.Of("content-type", "application/json", "a-b", "c\"ü"), Body: []byte("{}")}
	want := `{"Header":{"Content-Type":"application/json","A-B":"c\"ü","Micro-ID":"7","Micro-Topic":"orders"},"Body":"e30="}`
	if data := envelope.Encode(m, "7"); string(data) != want {
		t.Errorf("got %s, want %s", data, want)
	}
	if data := envelope.Encode(&broker.Message{Topic: "t"}, "7"); string(data) != `{"Header":{"Content-Type":"application/octet-stream","Micro-ID":"7","Micro-Topic":"t"},"Body":""}` {
		t.Errorf("of an empty message came %s", data)
	}
}

// FuzzDecode: the quick way and the thorough one read the same, and what is written is read as it was.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"Header":{"Micro-Topic":"t","Micro-Id":"1"},"Body":"eA=="}`, `{"Header":null,"Body":null}`, `{"Header":{":topic":"t"}}`, `[`, `{"Body":1}`,
		`{"Header":{"a":"1","A":"2"},"Body":""}`, `{"Header":{"a":"1","a":"2"},"Body":""}`, `{"Header":{"a":"\u0041"},"Body":"eA=="}`, `{"Header":{"a":"b"},"Body":"eA"}`,
		`{"Header":{"a":"b"},"Body":"eA=="}x`, `{"Header":{"a":"b"},"Body":"eA==","More":1}`, `{"Header":{"a":"ü"},"Body":"eA=="}`, "{\"Header\":{\"a\":\"\xff\"},\"Body\":\"\"}",
		`{"Header":{"":"b"},"Body":""}`, `{"Header":{"a":"b",},"Body":""}`, `{"Header":{"a":"b"}`, `{"Header":{"a":"b"},"Body":"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		thorough, slowErr := envelope.DecodeAny(data)
		if m := envelope.DecodeFast(data); m != nil && (slowErr != nil || !reflect.DeepEqual(m, thorough)) {
			t.Fatalf("%q is %+v to the quick way, and %+v, %v to the thorough one", data, m, thorough, slowErr)
		}
		m, err := envelope.Decode(data)
		if (err == nil) != (slowErr == nil) {
			t.Fatalf("%q: %v, and %v", data, err, slowErr)
		}
		if err != nil {
			return
		}
		again := envelope.Encode(m, m.ID)
		if !json.Valid(again) {
			t.Fatalf("%q became %q", data, again)
		}
		other, err := envelope.Decode(again)
		if err != nil || other.Topic != m.Topic || other.ID != m.ID || string(other.Body) != string(m.Body) {
			t.Fatalf("%q became %+v, and again %+v, %v", data, m, other, err)
		}
		if limit := envelope.Limit(len(m.Body)) + int64(6*len(m.Topic+m.ID)); int64(len(again)) > limit {
			t.Fatalf("%d bytes are over the limit %d", len(again), limit)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data := envelope.Encode(&broker.Message{Topic: "orders", Header: metadata.Of("content-type", "application/json"), Body: make([]byte, 100)}, "7")
	for name, decode := range map[string]func([]byte) *broker.Message{
		"fast": envelope.DecodeFast,
		"any":  func(data []byte) *broker.Message { m, _ := envelope.DecodeAny(data); return m },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if decode(data) == nil {
					b.Fatal("not read")
				}
			}
		})
	}
}
