package vom_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/vom"
)

// Benchmark compares VOM with JSON: a small body, whose types are most of it; one of a kilobyte; a list of structs; and what is
// read without a Go type.
func Benchmark(b *testing.B) {
	small := &Seven{Service: "greeter", Method: "Say.Hello", ID: 7, Body: []byte("hi"), Header: map[string]string{"a": "b"}, Ratio: 1.5, Offset: -3}
	large := &Seven{Service: strings.Repeat("x", 960), Method: "Say.Hello", ID: 7}
	list := make([]Outer, 100)
	for i := range list {
		list[i] = Outer{Name: fmt.Sprint("name ", i), In: Inner{int32(i), 7}, Opt: &Inner{1, 2}, List: []Inner{{3, 4}, {5, 6}}, ByName: map[string]Inner{"k": {X: 8}}}
	}
	for _, bc := range []struct {
		name string
		in   any
		out  func() any
	}{
		{"small", small, func() any { return new(Seven) }},
		{"kilobyte", large, func() any { return new(Seven) }},
		{"list", list, func() any { return new([]Outer) }},
		{"any", list, func() any { return new(any) }},
	} {
		for _, c := range []struct {
			name  string
			codec codec.Codec
		}{{"vom", vom.New()}, {"json", json.New()}} {
			data, err := c.codec.Append(nil, bc.in)
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 0, 2*len(data))
			if bc.name != "any" { // which is written as the list is
				b.Run(bc.name+"/Append/"+c.name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if _, err := c.codec.Append(dst, bc.in); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(len(data)), "B/body")
				})
			}
			b.Run(bc.name+"/Unmarshal/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := c.codec.Unmarshal(data, bc.out()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
