package etcd

import (
	"context"
	"errors"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// authenticate is the method of etcd by which one logs in.
const authenticate = "/etcdserverpb.Auth/Authenticate"

// login gives requests and streams a user's token. etcd's client could, but it logs in when it is made, and sends the old
// token along with the next login, which an etcd before 3.5 refuses.
type login struct {
	name, password string
	client         *clientv3.Client
	turn           chan struct{}          // of one element: one logs in at a time
	token          atomic.Pointer[string] // nil before the first login
}

func newLogin(name, password string) *login {
	return &login{name: name, password: password, turn: make(chan struct{}, 1)}
}

func (l *login) options() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(l.unary), grpc.WithChainStreamInterceptor(l.stream)}
}

// unary makes a request with the token, and once more if etcd wants another one.
func (l *login) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method == authenticate {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	token := l.token.Load()
	err := invoke(with(ctx, token), method, req, reply, cc, opts...)
	if !wantsLogin(err) {
		return err
	}
	if err := l.renew(ctx, token); err != nil {
		return err
	}
	return invoke(with(ctx, l.token.Load()), method, req, reply, cc, opts...)
}

// stream begins a stream with the token. It is never the first thing that is asked for: there is a token, if there has to be.
func (l *login) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, begin grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return begin(with(ctx, l.token.Load()), desc, cc, method, opts...)
}

// renew logs in, unless somebody else did since the token was refused.
func (l *login) renew(ctx context.Context, refused *string) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	if l.token.Load() != refused {
		return nil
	}
	rsp, err := l.client.Authenticate(ctx, l.name, l.password)
	if err != nil {
		return err
	}
	l.token.Store(&rsp.Token)
	return nil
}

func with(ctx context.Context, token *string) context.Context {
	if token == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, *token)
}

// wantsLogin reports whether an error says that a request had no token, or one that does not hold any more.
func wantsLogin(err error) bool {
	if err == nil {
		return false
	}
	err = known(err)
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}
