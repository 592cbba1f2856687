package googlepubsub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc/codes"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/googlepubsub"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
)

var openers = broker.Openers{"googlepubsub": googlepubsub.Open}

// TestGoogles: the suite runs on a stream of its own; this is Google's stand-in as it is.
func TestGoogles(t *testing.T) {
	t.Parallel()
	s := pstest.NewServer()
	t.Cleanup(func() { _ = s.Close() })
	b, alone, queue := open(t, googlepubsub.Options{Project: "test", Emulator: s.Addr}), &brokertest.Inbox{}, &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "a/b", alone.Handle)
	brokertest.Subscribe(t, b, "a/b", queue.Handle, broker.Queue("q"))
	for i := range 20 {
		brokertest.Publish(t, b, "a/b", fmt.Sprint(i), "x")
	}
	alone.Wait(t, 40)
	queue.Wait(t, 40)
	m := s.Messages()[0]
	if m.Topic != "projects/test/topics/a%2Fb" || string(m.Data) != "0" || m.Attributes["Content-Type"] != "text/plain" || m.Attributes["Micro-Topic"] != "a/b" || m.Attributes["Micro-ID"] == "" || len(m.Attributes) != 3 {
		t.Errorf("a message is stored as %+v", m)
	}
	s.Publish(m.Topic, []byte("theirs"), map[string]string{"Content-Type": "text/plain", "Micro-Id": "abc"}) // as go-micro does
	alone.Wait(t, 41)
	if got := alone.All()[40]; got.ID != "abc" || string(got.Body) != "theirs" || got.Header.Len() != 1 || got.Header.Get("content-type") != "text/plain" {
		t.Errorf("got %+v", got)
	}
}

func TestOrdering(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	o := s.options()
	o.Ordering = true
	b, in := open(t, o), &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "ordered", in.Handle, broker.Queue("q"), broker.Concurrency(1))
	var want []string
	for i := range 6 { // the client acknowledges ten times in a second
		var bodies []string
		for j := range 10 {
			bodies = append(bodies, fmt.Sprint(i*10+j))
		}
		brokertest.Publish(t, b, "ordered", bodies...)
		want = append(want, bodies...)
	}
	if got := in.Wait(t, 60); !slices.Equal(got, want) {
		t.Errorf("messages came as %q", got)
	}
}

// What Pub/Sub refuses is told as what it is.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code codes.Code
		want error
		text string
	}{
		{codes.Unauthenticated, &status.Error{Code: status.Unauthenticated}, "are not let in: because"},
		{codes.PermissionDenied, &status.Error{Code: status.PermissionDenied}, "because"},
		{codes.InvalidArgument, broker.ErrInvalid, "because"},
		{codes.Unavailable, broker.ErrUnavailable, "is not answering: because"},
		{codes.ResourceExhausted, &status.Error{Code: status.ResourceExhausted}, "because"},
	} {
		t.Run(tt.code.String(), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, pstest.WithErrorInjection("Publish", tt.code, "because"), pstest.WithErrorInjection("CreateSubscription", tt.code, "because"))
			o := s.options()
			o.Timeout = s.options().Timeout / 10
			b := open(t, o)
			must(t, b.Close())
			b = open(t, o)
			_, published := b.Publish(t.Context(), &broker.Message{Topic: "refused"})
			_, subscribed := b.Subscribe(t.Context(), "refused", (&brokertest.Inbox{}).Handle)
			for what, err := range map[string]error{"Publish": published, "Subscribe": subscribed} {
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), "Pub/Sub of test") || !strings.HasPrefix(err.Error(), "broker: ") {
					t.Errorf("%s gave %v, want %v and %q", what, err, tt.want, tt.text)
				}
			}
		})
	}
}

// Subscriptions without a queue go by Close, and are set to go by themselves; those of queues stay, and are used as they are.
func TestMade(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	b, in := open(t, s.options()), &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "made", in.Handle, broker.Queue("a/b"))
	sub := brokertest.Subscribe(t, b, "made", in.Handle)
	subs, err := s.ListSubscriptions(t.Context(), &pb.ListSubscriptionsRequest{Project: "projects/test"})
	must(t, err)
	for _, has := range subs.Subscriptions {
		own := strings.Contains(has.Name, "+~")
		if ttl := has.ExpirationPolicy.GetTtl(); own != (ttl != nil) {
			t.Errorf("%s expires after %v", has.Name, ttl)
		}
		if p := has.DeadLetterPolicy; p.GetMaxDeliveryAttempts() != 5 || p.GetDeadLetterTopic() != "projects/test/topics/made.dead" {
			t.Errorf("%s has the dead letter policy %v", has.Name, p)
		}
		if min := has.RetryPolicy.GetMinimumBackoff().AsDuration(); min != googlepubsub.DefaultRetryWait {
			t.Errorf("%s comes again after %v", has.Name, min)
		}
	}
	must(t, sub.Close())
	if got := s.names(t); len(got) != 3 || !slices.Contains(got, "subscriptions/made+a%2Fb") || !slices.Contains(got, "topics/made.dead") {
		t.Errorf("after Close there are %q", got)
	}
	_, err = s.CreateSubscription(t.Context(), &pb.Subscription{Name: "projects/test/subscriptions/made+other", Topic: "projects/test/topics/made.dead", AckDeadlineSeconds: 10})
	must(t, err)
	if _, err := b.Subscribe(t.Context(), "made", in.Handle, broker.Queue("other")); !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), "is for projects/test/topics/made.dead") {
		t.Errorf("a queue of another topic gave %v", err)
	}
}

// A subscription that somebody deletes is made again.
func TestDeleted(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	said := &brokertest.Journal{}
	o := s.options()
	o.Logger = said.Logger()
	b, in := open(t, o), &brokertest.Inbox{}
	brokertest.Subscribe(t, b, "deleted", in.Handle, broker.Queue("q"))
	_, err := s.DeleteSubscription(t.Context(), &pb.DeleteSubscriptionRequest{Subscription: "projects/test/subscriptions/deleted+q"})
	must(t, err)
	brokertest.Until(t, "a message comes", func() bool { brokertest.Publish(t, b, "deleted", "x"); return len(in.All()) > 0 })
	if !said.Has("a subscription is broken, and begins anew") {
		t.Errorf("the logger was told:\n%s", said)
	}
}

// A queue that is there without a dead letter policy is counted here; and what a subscriber of dead letters fails is dropped.
func TestCounted(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	said := &brokertest.Journal{}
	o := s.options()
	o.Logger = said.Logger()
	b := open(t, o)
	_, err := s.CreateTopic(t.Context(), &pb.Topic{Name: "projects/test/topics/counted"})
	must(t, err)
	_, err = s.CreateSubscription(t.Context(), &pb.Subscription{Name: "projects/test/subscriptions/counted+q", Topic: "projects/test/topics/counted", AckDeadlineSeconds: 10})
	must(t, err)
	fails := func(context.Context, *broker.Message) error { return errors.New("no") }
	brokertest.Subscribe(t, b, "counted.dead", fails, broker.Queue("undertaker"))
	brokertest.Subscribe(t, b, "counted", fails, broker.Queue("q"))
	brokertest.Publish(t, b, "counted", "x")
	brokertest.Until(t, "the dead letter is dropped", func() bool { return said.Has("a dead letter was not handled, and is dropped") })
	if n := strings.Count(said.String(), "a message was not handled, and is a dead letter"); n != 1 {
		t.Errorf("%d dead letters, want 1:\n%s", n, said)
	}
}

// Names that Pub/Sub does not take are written otherwise, and stay apart.
func TestNames(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	b := open(t, s.options())
	long := strings.Repeat("x/", 63)
	topics := []string{"a.b", "a/b", "ab", "1", "11", "google", "Goog", "t", long + "1", long + "2"}
	queues := []string{"q", "q/r", "1", long}
	var all []*brokertest.Inbox
	for _, topic := range topics {
		for _, queue := range queues {
			in := &brokertest.Inbox{}
			brokertest.Subscribe(t, b, topic, in.Handle, broker.Queue(queue))
			all = append(all, in)
		}
	}
	for i, topic := range topics {
		brokertest.Publish(t, b, topic, fmt.Sprint(i))
	}
	for i, in := range all {
		if got := in.Wait(t, 1); len(got) != 1 || got[0] != fmt.Sprint(i/len(queues)) {
			t.Errorf("the subscriber of %s got %q, want %d", topics[i/len(queues)], got, i/len(queues))
		}
	}
	for _, name := range s.names(t) {
		_, id, _ := strings.Cut(name, "/")
		if len(id) < 3 || len(id) > 255 || id[0] < 'A' || strings.HasPrefix(strings.ToLower(id), "goog") || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~+%") != "" {
			t.Errorf("Pub/Sub takes no %q", id)
		}
	}
}

// A header that Pub/Sub does not carry is refused before any message is stored.
func TestLongHeader(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	b := open(t, s.options())
	long := &broker.Message{Topic: "a", Header: metadata.Of("long", strings.Repeat("x", 1025))}
	if _, err := b.Publish(t.Context(), &broker.Message{Topic: "a"}, long); !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), `header "long" has 1025 bytes`) {
		t.Errorf("Publish gave %v", err)
	}
	if n := len(s.stand.Messages()); n != 0 {
		t.Errorf("%d messages were stored", n)
	}
}

// noEnvironment clears what the environment says.
func noEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{googlepubsub.EnvProject, googlepubsub.EnvCredentials, googlepubsub.EnvEmulator} {
		t.Setenv(name, "")
	}
}

// Credentials that cannot be read are named, and not told.
func TestCredentials(t *testing.T) { // not parallel: it sets the environment
	noEnvironment(t)
	file := filepath.Join(t.TempDir(), "key.json")
	must(t, os.WriteFile(file, []byte(`{"type":"service_account","private_key":"s3cret"`), 0o600))
	for raw, env := range map[string]string{"googlepubsub://p?credentials-file=" + file: "", "googlepubsub://p": file, "googlepubsub://p?credentials-file=/nowhere": ""} {
		t.Setenv(googlepubsub.EnvCredentials, env)
		b, err := openers.Open(t.Context(), raw)
		must(t, err)
		_, err = b.Publish(t.Context(), &broker.Message{Topic: "a"})
		if !errors.Is(err, &status.Error{Code: status.Unauthenticated}) || !strings.Contains(err.Error(), "no credentials can be read from ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: Publish gave %v", raw, err)
		}
		must(t, b.Close())
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	noEnvironment(t)
	for _, tt := range []struct{ raw, err string }{
		{"googlepubsub://p", ""},
		{"googlepubsub://p?ordering=true&tries=7&retry-wait=2s&timeout=1s&max-message=1000&emulator=h:1", ""},
		{"googlepubsub", "no project: want googlepubsub://project, or GOOGLE_CLOUD_PROJECT set"},
		{"googlepubsub://a,b", `project "a,b": want its id`},
		{"googlepubsub://svc:s3cret@p", "credentials do not belong in a URL: use credentials-file, or GOOGLE_APPLICATION_CREDENTIALS"},
		{"googlepubsub://s3cret@p", "credentials do not belong in a URL"},
		{"googlepubsub://p/orders", "want googlepubsub://project"},
		{"googlepubsub://p?order=true", `unknown parameter "order", googlepubsub takes: ordering, tries, retry-wait, timeout, max-message, emulator, credentials-file`},
		{"googlepubsub://p?ordering=maybe", `ordering "maybe": want true or false`},
		{"googlepubsub://p?tries=4", "tries 4: want 5 to 100"},
		{"googlepubsub://p?tries=101", "tries 101: want 5 to 100"},
		{"googlepubsub://p?retry-wait=1h", "retry-wait 1h0m0s: want 10m0s at most"},
		{"googlepubsub://p?timeout=x", `timeout "x" is not a duration`},
		{"googlepubsub://p?max-message=100000000", "Pub/Sub carries"},
	} {
		b, err := openers.Open(t.Context(), tt.raw)
		if err == nil {
			must(t, b.Close())
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.raw, err)
		case tt.err != "" && (!errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s gave %v, want %q", tt.raw, err, tt.err)
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%s tells the secret: %v", tt.raw, err)
		}
	}
}
