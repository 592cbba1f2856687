package googlepubsub_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker/googlepubsub"
)

func TestMain(m *testing.M) {
	// OpenCensus, which the client's libraries bring along, starts it with the program.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// server is Google's stand-in for Pub/Sub, with a stream of its own: Google's sends a message each 10 ms. It can be killed, and keeps what
// it has.
type server struct {
	*pstest.GServer
	addr   string
	stand  *pstest.Server
	server *grpc.Server

	mu   sync.Mutex
	last int
	open map[string]delivery // by the acknowledgement's id: Google's stand-in has the same for all deliveries of a message
}

// delivery is one that is not settled.
type delivery struct {
	id  string // of the stand-in
	has *int   // how many the stream has
}

func startServer(t testing.TB, opts ...pstest.ServerReactorOption) *server {
	s := &server{addr: testserver.FreeAddr(), stand: pstest.NewServer(opts...), open: map[string]delivery{}}
	s.GServer = &s.stand.GServer
	s.start(t)
	t.Cleanup(func() { s.kill(); _ = s.stand.Close() })
	return s
}

func (s *server) start(t testing.TB) {
	l, err := net.Listen("tcp", s.addr)
	must(t, err)
	s.server = grpc.NewServer()
	pb.RegisterPublisherServer(s.server, s)
	pb.RegisterSubscriberServer(s.server, s)
	go func() { _ = s.server.Serve(l) }()
}

func (s *server) kill() { s.server.Stop() }

func (s *server) StreamingPull(stream pb.Subscriber_StreamingPullServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	var has int
	for {
		s.mu.Lock()
		room := min(int(first.MaxOutstandingMessages)-has, 10)
		s.mu.Unlock()
		if room > 0 {
			//lint:ignore SA1019 the stand-in would wait for half a second
			rsp, err := s.GServer.Pull(stream.Context(), &pb.PullRequest{Subscription: first.Subscription, MaxMessages: int32(room), ReturnImmediately: true})
			if err != nil {
				return err
			}
			s.mu.Lock()
			for i, m := range rsp.ReceivedMessages {
				s.last++
				own := proto.CloneOf(m)
				own.AckId = fmt.Sprint(s.last)
				rsp.ReceivedMessages[i], s.open[own.AckId] = own, delivery{m.AckId, &has}
				has++
			}
			s.mu.Unlock()
			if len(rsp.ReceivedMessages) > 0 {
				if err := stream.Send(&pb.StreamingPullResponse{ReceivedMessages: rsp.ReceivedMessages}); err != nil {
					return err
				}
				continue
			}
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// ids gives the stand-in's for deliveries that are not settled, and settles them.
func (s *server) ids(ids []string, settle bool) (theirs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		d, ok := s.open[id]
		if ok {
			theirs = append(theirs, d.id)
		}
		if ok && settle {
			*d.has--
			delete(s.open, id)
		}
	}
	return theirs
}

func (s *server) Acknowledge(ctx context.Context, req *pb.AcknowledgeRequest) (*emptypb.Empty, error) {
	return s.GServer.Acknowledge(ctx, &pb.AcknowledgeRequest{Subscription: req.Subscription, AckIds: s.ids(req.AckIds, true)})
}

func (s *server) ModifyAckDeadline(ctx context.Context, req *pb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	return s.GServer.ModifyAckDeadline(ctx, &pb.ModifyAckDeadlineRequest{
		Subscription: req.Subscription, AckIds: s.ids(req.AckIds, req.AckDeadlineSeconds == 0), AckDeadlineSeconds: req.AckDeadlineSeconds,
	})
}

// names gives the topics and the subscriptions.
func (s *server) names(t testing.TB) (names []string) {
	t.Helper()
	topics, err := s.ListTopics(t.Context(), &pb.ListTopicsRequest{Project: "projects/test"})
	must(t, err)
	subs, err := s.ListSubscriptions(t.Context(), &pb.ListSubscriptionsRequest{Project: "projects/test"})
	must(t, err)
	for _, topic := range topics.Topics {
		names = append(names, strings.TrimPrefix(topic.Name, "projects/test/"))
	}
	for _, sub := range subs.Subscriptions {
		names = append(names, strings.TrimPrefix(sub.Name, "projects/test/"))
	}
	return names
}

// options are those for tests.
func (s *server) options() googlepubsub.Options {
	return googlepubsub.Options{Project: "test", Emulator: s.addr, Timeout: 2 * time.Second}
}

// open makes a broker until the end of the test.
func open(t testing.TB, o googlepubsub.Options) *googlepubsub.Broker {
	t.Helper()
	b, err := googlepubsub.New(o)
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
