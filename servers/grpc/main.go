// Program grpc is gRPC-Go in a process of its own, for the tests of what it and this project have of each other. Its first argument is
// "serve ADDRESS", a server of pkg.Say that prints its address and ends with its standard input; or "call ADDRESS", a client with
// generated stubs that runs each check of check.go against a server of the same methods, and prints a line of JSON for each.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/servers/grpc/say"
)

func main() {
	log.SetFlags(0)
	cert := flag.String("cert", "", "a server's certificate")
	key := flag.String("key", "", "its key")
	ca := flag.String("ca", "", "a client's authority: TLS")
	age := flag.Duration("age", 0, "how old a connection to the server may become")
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "serve":
		err = serve(flag.Arg(1), *cert, *key, *age)
	case "call":
		err = call(flag.Arg(1), *ca)
	case "bench":
		err = bench(flag.Arg(1))
	default:
		err = errors.New("want serve, call or bench, and an address")
	}
	if err != nil {
		log.Fatalf("grpc: %v", err)
	}
}

func serve(addr, cert, key string, age time.Duration) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	var opts []grpc.ServerOption
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return err
		}
		opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	}
	if age > 0 {
		opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age, MaxConnectionAgeGrace: time.Minute}))
	}
	s := grpc.NewServer(opts...)
	say.RegisterSayServer(s, server{})
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	fmt.Println(l.Addr())
	go func() {
		orders(s)
		s.Stop()
	}()
	return s.Serve(l)
}

// orders ends the server gracefully on a line, and returns at the end of the input.
func orders(s *grpc.Server) {
	one := make([]byte, 1)
	for {
		if _, err := os.Stdin.Read(one); err != nil {
			return
		}
		go s.GracefulStop()
	}
}

type server struct{ say.UnimplementedSayServer }

// echo gives the caller's metadata back that begins with "echo", as header and as trailer.
func echo(ctx context.Context) (header, trailer metadata.MD) {
	header, trailer = metadata.MD{}, metadata.MD{}
	in, _ := metadata.FromIncomingContext(ctx)
	for k, v := range in {
		if strings.HasPrefix(k, "echo") {
			header[k] = v
			trailer["trailer-"+k] = v
		}
	}
	return header, trailer
}

// failure gives the error that a name asks for: "code 5 no such name", "details 3 bad", "large 3 with more than 8 KB of details".
func failure(name string) error {
	words := strings.SplitN(name, " ", 3)
	if len(words) < 3 || words[0] != "code" && words[0] != "details" && words[0] != "large" {
		return nil
	}
	n, _ := strconv.Atoi(words[1])
	st := status.New(codes.Code(n), words[2])
	switch words[0] {
	case "details":
		st, _ = st.WithDetails(&spb.BadRequest{FieldViolations: []*spb.BadRequest_FieldViolation{{Field: "name", Description: "is bad"}}},
			durationpb.New(1500*time.Millisecond), &say.Hint{Text: "ask again"})
		p := st.Proto()
		p.Details = append(p.Details, &anypb.Any{TypeUrl: "types.example/odd.Thing", Value: []byte{8, 1}})
		st = status.FromProto(p)
	case "large":
		st, _ = st.WithDetails(&spb.DebugInfo{Detail: strings.Repeat("x", 8<<10)})
	}
	return st.Err()
}

func (server) Hello(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	header, trailer := echo(ctx)
	_ = grpc.SetHeader(ctx, header)
	_ = grpc.SetTrailer(ctx, trailer)
	if err := failure(in.Value); err != nil {
		return nil, err
	}
	if in.Value == "sleep" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if in.Value == "deadline" {
		until, ok := ctx.Deadline()
		return wrapperspb.String(fmt.Sprint(ok, time.Until(until).Round(time.Second))), nil
	}
	return wrapperspb.String("Hello " + in.Value), nil
}

func (server) List(in *wrapperspb.Int64Value, out grpc.ServerStreamingServer[wrapperspb.StringValue]) error {
	for i := range in.Value {
		if err := out.Send(wrapperspb.String(fmt.Sprintf("item %d", i))); err != nil {
			return err
		}
	}
	return nil
}

func (server) Sum(in grpc.ClientStreamingServer[wrapperspb.Int64Value, wrapperspb.Int64Value]) error {
	sum := int64(0)
	for {
		m, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(wrapperspb.Int64(sum))
		}
		if err != nil {
			return err
		}
		sum += m.Value
	}
}

func (server) Chat(s grpc.BidiStreamingServer[wrapperspb.StringValue, wrapperspb.StringValue]) error {
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := failure(m.Value); err != nil {
			return err
		}
		if err := s.Send(wrapperspb.String("Hello " + m.Value)); err != nil {
			return err
		}
	}
}
