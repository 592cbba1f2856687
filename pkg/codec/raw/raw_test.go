package raw_test

import (
	"testing"

	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/raw"
)

func harness() codectest.Harness {
	bytes, text := []byte("\x00\xff bytes"), "text"
	newBytes, newText := func() any { return new([]byte) }, func() any { return new(string) }
	return codectest.Harness{
		Codec: raw.New(),
		Values: []codectest.Value{
			{Name: "bytes", In: bytes, New: newBytes, Want: &bytes},
			{Name: "pointer to bytes", In: &bytes, New: newBytes, Want: &bytes},
			{Name: "string", In: text, New: newText, Want: &text},
			{Name: "pointer to string", In: &text, New: newText, Want: &text},
			{Name: "nothing", In: []byte{}, New: newBytes, Want: new([]byte)},
		},
		Foreign: []any{nil, 1, new(int), struct{}{}, (*[]byte)(nil), (*string)(nil)},
	}
}

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Run(t, harness())
}

func FuzzUnmarshal(f *testing.F) { codectest.Fuzz(f, harness()) }

func TestSecondDecodeLeavesTheFirst(t *testing.T) {
	t.Parallel()
	var v []byte
	if err := raw.New().Unmarshal([]byte("first"), &v); err != nil {
		t.Fatal(err)
	}
	first := v
	if err := raw.New().Unmarshal([]byte("other"), &v); err != nil {
		t.Fatal(err)
	}
	if string(first) != "first" || string(v) != "other" {
		t.Errorf("got %q, then %q", first, v)
	}
}

func TestEmptySliceIsFilled(t *testing.T) {
	t.Parallel()
	storage := make([]byte, 0, 5)
	for _, tc := range []struct {
		data   string
		filled bool
	}{{"first", true}, {"too long", false}} {
		v := storage
		if err := raw.New().Unmarshal([]byte(tc.data), &v); err != nil || string(v) != tc.data {
			t.Fatalf("got %q, %v", v, err)
		}
		if filled := &v[0] == &storage[:1][0]; filled != tc.filled {
			t.Errorf("%q: in the storage that was given: %t, want %t", tc.data, filled, tc.filled)
		}
	}
}
