// Command service is a service whose endpoints are the methods of a struct.
package main

import (
	"context"
	"log"
	"log/slog"
	"time"

	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// Clock is the service: each exported method is an endpoint.
type Clock struct{}

// NowRequest is what Clock.Now takes.
type NowRequest struct {
	Zone string `json:"zone" doc:"a time zone, as in Europe/Paris" default:"\"UTC\""`
}

// NowResponse is what Clock.Now gives.
type NowResponse struct {
	Time string `json:"time" doc:"RFC 3339"`
}

// Now tells the time.
func (Clock) Now(_ context.Context, req *NowRequest) (*NowResponse, error) {
	zone, err := time.LoadLocation(req.Zone)
	if err != nil {
		return nil, status.Wrap(err, status.InvalidArgument, "no such zone: %q", req.Zone)
	}
	return &NowResponse{Time: time.Now().In(zone).Format(time.RFC3339)}, nil
}

// Up is in the older form: the answer is filled in.
func (Clock) Up(_ context.Context, _ *struct{}, rsp *NowResponse) error {
	rsp.Time = started.Format(time.RFC3339)
	return nil
}

var started = time.Now()

func main() {
	svc, err := micro.New("clock",
		micro.FromEnv(micro.Drivers{}), // lets `micro run` and the environment choose name, address and registry
		micro.Version("1.0.0"),
		micro.Logger(slog.Default()),
		micro.AfterStart(func(context.Context) error {
			log.Print("ready: micro call clock Clock.Now zone=Europe/Paris")
			return nil
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	// Register's error need not be looked at: Run fails with it.
	_ = svc.Register(Clock{}, server.Method("Now", server.Idempotent(), server.Doc("Tells the time.")))
	if err := svc.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
