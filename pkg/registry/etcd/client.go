package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
	"github.com/cb02dfca/micro/pkg/status"
)

// How a connection is made and kept.
const (
	connectTime  = 3 * time.Second // for one attempt
	firstConnect = 100 * time.Millisecond
	lastConnect  = time.Second      // between two attempts at most: leases of 2 s are to live through a restart of etcd
	pingTime     = 10 * time.Second // without a word from etcd while a stream is open; more often than 5 s it refuses
	pingTimeout  = 5 * time.Second
	unaryTries   = 4 // of a request that changes nothing
)

// dial makes etcd's own client, which connects when it is first used.
func dial(o Options) (*clientv3.Client, error) {
	config := clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS, DialTimeout: o.Timeout,
		DialKeepAliveTime: pingTime, DialKeepAliveTimeout: pingTimeout,
		MaxUnaryRetries: max(unaryTries, 2*uint(len(o.Endpoints))), MaxCallRecvMsgSize: maxAnswer,
		Logger: zap.NewNop(), // it writes each retry to standard error otherwise
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: firstConnect, Multiplier: 1.6, Jitter: 0.2, MaxDelay: lastConnect},
				MinConnectTimeout: connectTime,
			}),
			grpc.WithChainUnaryInterceptor(failFast),
			grpc.WithContextDialer(connect),
		},
	}
	if o.Username == "" {
		return clientv3.New(config)
	}
	l := newLogin(o.Username, o.Password)
	config.DialOptions = append(config.DialOptions, l.options()...)
	client, err := clientv3.New(config)
	l.client = client // before the first request
	return client, err
}

// connect makes a connection that is found dead though nothing is sent: gRPC asks less often for a sign of life.
func connect(ctx context.Context, address string) (net.Conn, error) {
	return remote.Dialer(connectTime).DialContext(ctx, "tcp", address)
}

// failFast makes a request fail when no connection can be made, with the reason, instead of waiting until its time is over.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}

// streams gives the context of watches. Those with the same metadata share one stream, whose login is that of its
// beginning; renewStreams lets the next ones have a new one.
func (r *Registry) streams(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "micro-epoch", strconv.FormatUint(r.epoch.Load(), 10))
}

func (r *Registry) renewStreams() { r.epoch.Add(1) }

// get asks for keys.
func (r *Registry) get(ctx context.Context, key string, opts ...clientv3.OpOption) (rsp *clientv3.GetResponse, err error) {
	err = r.ask(ctx, func(ctx context.Context) error {
		rsp, err = r.client.Get(ctx, key, opts...)
		return err
	})
	return rsp, err
}

// ask makes a request, within Timeout, and gives its error in this package's terms.
func (r *Registry) ask(ctx context.Context, request func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	err := request(bounded)
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled) && r.life.Err() != nil:
		return registry.ErrClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case bounded.Err() != nil:
		return r.unavailable(fmt.Errorf("no answer in time: %w", context.DeadlineExceeded))
	}
	return r.said(err)
}

// said gives an error of etcd, or of the way to it, in this package's terms.
func (r *Registry) said(err error) error {
	err = known(err)
	var e *status.Error
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed):
		e = status.Wrap(err, status.Unauthenticated, "user %q: wrong name or password", r.o.Username)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		e = status.Wrap(err, status.Unauthenticated, "it asks for a user: set ETCD_USERNAME and ETCD_PASSWORD, or credentials-file")
	case wantsLogin(err):
		e = status.Wrap(err, status.Unauthenticated, "user %q: the login does not hold any more", r.o.Username)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		e = status.Wrap(err, status.PermissionDenied, "user %q may not read and write below %s: grant it a role that may", r.o.Username, r.o.Prefix)
	case codeOf(err) == codes.ResourceExhausted:
		e = status.Wrap(err, status.ResourceExhausted, "%s", text(err))
	default:
		return r.unavailable(reason(err))
	}
	return fmt.Errorf("registry: etcd %s: %w", r.host, e)
}

// known gives the error of package rpctypes that an error is, if any. That of a watch that is refused is a text with one in
// it.
func known(err error) error {
	if _, text, ok := strings.Cut(err.Error(), " desc = "); ok {
		if k := rpctypes.Error(grpcstatus.Error(codes.Unknown, text)); errors.As(k, new(rpctypes.EtcdError)) {
			return k
		}
	}
	return rpctypes.Error(err)
}

// refused reports whether an error says that etcd is there, and does not want what it was asked for.
func refused(err error) bool {
	var e *status.Error
	return errors.As(err, &e)
}

func codeOf(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code()
	}
	return grpcstatus.Code(err)
}

// unavailable says that etcd could not answer, and why.
func (r *Registry) unavailable(cause error) error {
	return fmt.Errorf("%w: %s is not answering: %w", registry.ErrUnavailable, r.host, cause)
}

// reason gives why a request failed: the system's error again, where grpc has made a text of it.
func reason(err error) error {
	t := text(err)
	for _, known := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		if t == known.Error() {
			return known
		}
	}
	if strings.HasPrefix(t, "error reading server preface: ") && strings.HasSuffix(t, net.ErrClosed.Error()) { // who dialled closed it: a server that is frozen
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	}
	return errors.New(t)
}

// text gives an error's reason without what grpc and net put around it, of which the address is said already.
func text(err error) string {
	t := err.Error()
	if s, ok := grpcstatus.FromError(err); ok {
		t = s.Message()
	}
	if _, inner, ok := strings.Cut(t, `desc = "`); ok { // connection error: desc = "transport: Error while dialing: dial tcp ..."
		t = strings.TrimSuffix(inner, `"`)
	}
	for _, prefix := range []string{"transport: ", "Error while dialing: ", "etcdserver: "} {
		t = strings.TrimPrefix(t, prefix)
	}
	if rest, ok := strings.CutPrefix(t, "dial tcp "); ok {
		if _, why, found := strings.Cut(rest, ": "); found {
			t = strings.TrimPrefix(why, "connect: ")
		}
	}
	return t
}
