package grpc_test

import (
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// BenchmarkCall is a unary call of one caller and of many: between ours and ours, from ours to gRPC-Go's server in a process of its
// own, and by the default transport's frames.
func BenchmarkCall(b *testing.B) {
	for _, how := range []struct {
		name string
		by   transport.Transport
		addr func() string
	}{
		{"Ours", newTransport(b, grpc.Options{}), func() string { return serve(b, beside(b, transporthttp.Options{})) }},
		{"Theirs", newTransport(b, grpc.Options{}), func() string { return startServer(b).addr }},
		{"Frames", beside(b, transporthttp.Options{}), func() string { return serve(b, beside(b, transporthttp.Options{})) }},
	} {
		c := newClient(b, how.by)
		at, service := client.Address(how.addr()), "pkg"
		if how.name != "Theirs" {
			service = "greeter"
		}
		call := func(b *testing.B) {
			if _, err := client.Call[text](b.Context(), c, service, "Say.Hello", wrapperspb.String("John"), at); err != nil {
				b.Error(err)
			}
		}
		b.Run(how.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call(b)
			}
		})
		b.Run(how.name+"Of64", func(b *testing.B) {
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call(b)
				}
			})
		})
	}
}

// BenchmarkTheirClient has gRPC-Go's client call our server, and its own: it prints what it took.
func BenchmarkTheirClient(b *testing.B) {
	for name, addr := range map[string]func() string{
		"Ours":   func() string { return serve(b, beside(b, transporthttp.Options{})) },
		"Theirs": func() string { return startServer(b).addr },
	} {
		out, err := exec.Command(peer(b), "bench", addr()).CombinedOutput()
		must(b, err)
		b.Logf("%s: %s", name, strings.ReplaceAll(string(out), "\n", "; "))
	}
}
