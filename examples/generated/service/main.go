// Command service implements the handler that micro generate made of greeter.proto.
package main

import (
	"context"
	"log"
	"strings"

	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"

	"example.com/generated/greeterpb"
)

// say has no Chat: the embedded struct refuses that as not implemented.
type say struct {
	greeterpb.UnimplementedSayHandler
}

func (say) Hello(_ context.Context, req *greeterpb.HelloRequest) (*greeterpb.HelloReply, error) {
	if req.Name == "" {
		return nil, status.New(status.InvalidArgument, "name is empty")
	}
	return &greeterpb.HelloReply{Msg: "Hello " + req.Name}, nil
}

func (say) Repeat(_ context.Context, req *greeterpb.RepeatRequest, out *server.Sender[greeterpb.HelloReply]) error {
	for range min(req.Times, 100) {
		if err := out.Send(&greeterpb.HelloReply{Msg: "Hello " + req.Name}); err != nil {
			return err
		}
	}
	return nil
}

func (say) Everybody(_ context.Context, in *server.Receiver[greeterpb.HelloRequest]) (*greeterpb.HelloReply, error) {
	var names []string
	for req, err := range in.All() {
		if err != nil {
			return nil, err
		}
		names = append(names, req.Name)
	}
	return &greeterpb.HelloReply{Msg: "Hello " + strings.Join(names, ", ")}, nil
}

func main() {
	svc, err := micro.New("greeter", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		log.Fatal(err)
	}
	if err := greeterpb.RegisterSayHandler(svc.Server(), say{}); err != nil {
		log.Fatal(err)
	}
	if err := svc.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
