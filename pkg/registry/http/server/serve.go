package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	stdhttp "net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/internal/socket"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/shortcut"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
)

const (
	answerTimeout = 30 * time.Second // for a client to take an answer
	readTimeout   = 10 * time.Second // for a request to come whole
	stopTimeout   = 3 * time.Second  // for requests under way when the server stops
)

// Serve answers on l, which may be a TLS listener, until ctx ends; it closes l and the server, and gives nil then, or the error of
// Close. It also ends when the disk with the nodes failed, with an error. Beyond loopback it refuses to serve without a token, unless told to
// by Insecure or ClientCerts.
func (s *Server) Serve(ctx context.Context, l net.Listener) (err error) {
	address := l.Addr().String()
	defer func() { err = errors.Join(err, s.Close()) }()
	if !hostcheck.Loopback(address) && s.o.Token == "" && !s.o.ClientCerts && !s.o.Insecure {
		_ = l.Close()
		return fmt.Errorf("registry: %s is reached by other machines: give the server a token, or let it listen on 127.0.0.1", address)
	}
	s.open.Store(!hostcheck.Loopback(address))
	if s.open.Load() && s.o.Token == "" && !s.o.ClientCerts {
		s.busy.Go(func() { s.warn(address) })
	}
	if s.o.Bridge != nil {
		s.busy.Go(s.bridge)
	}
	server := &stdhttp.Server{
		Handler:           s.guard(address),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       readTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	l = netutil.LimitListener(remote.Listener(socket.Listener(l)), s.o.MaxConns)
	if renewals := s.renewals(address); renewals != nil {
		quick := shortcut.Listen(l, shortcut.Options{Answer: renewals, Idle: server.IdleTimeout, Read: server.ReadTimeout, Write: server.WriteTimeout})
		l, server.ConnState = quick, quick.ConnState
	}
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { failed <- server.Serve(l) })
	defer serving.Wait()
	select {
	case err := <-failed:
		return fmt.Errorf("registry: serve %s: %w", address, err)
	case <-s.held.Failed():
		err = s.held.Err()
	case <-ctx.Done():
	}
	s.end() // watches would keep Shutdown waiting
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if late := server.Shutdown(stopping); late != nil {
		return errors.Join(err, fmt.Errorf("registry: stop %s: %w", address, late), server.Close())
	}
	return err
}

// warn says each minute that the server is open to everybody.
func (s *Server) warn(address string) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-s.life.Done():
			return
		case <-tick.C:
			s.o.Logger.Warn("registry server has no token: whoever reaches it may register what he likes", "address", address)
		}
	}
}
