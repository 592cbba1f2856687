package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/consul"
	"go-micro.dev/v5/registry/etcd"
	"go-micro.dev/v5/registry/nats"
)

// open gives go-micro's own registry for etcd://ADDRESS, consul://ADDRESS, nats://ADDRESS?prefix=PREFIX, or memory:, of this process alone.
func open(address string) (registry.Registry, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	addrs := registry.Addrs(u.Host)
	switch u.Scheme {
	case "memory":
		return registry.NewMemoryRegistry(), nil
	case "etcd":
		return etcd.NewEtcdRegistry(addrs), nil
	case "consul":
		return consul.NewConsulRegistry(addrs), nil
	case "nats":
		prefix := u.Query().Get("prefix")
		return nats.NewNatsRegistry(addrs, nats.QueryTopic(prefix+".query"), nats.WatchTopic(prefix+".watch")), nil
	}
	return nil, fmt.Errorf("%s: no such registry", address)
}

// runRegistry is a registry alone. Its orders are "register SECONDS SERVICE", "deregister SERVICE", both with go-micro's JSON of a
// service, "get NAME", "list", and "watch NAME", whose results are events.
//
// usage: gomicro registry URL
func runRegistry(args []string) error {
	r, err := open(args[0])
	if err != nil {
		return err
	}
	orders(func(verb, rest string) {
		switch verb {
		case "register":
			seconds, text, _ := strings.Cut(rest, " ")
			ttl, _ := strconv.Atoi(seconds)
			s, err := service(text)
			if err == nil {
				err = r.Register(s, registry.RegisterTTL(time.Duration(ttl)*time.Second))
			}
			say("", "registered", err)
		case "deregister":
			s, err := service(rest)
			if err == nil {
				err = r.Deregister(s)
			}
			say("", "deregistered", err)
		case "get":
			s, err := r.GetService(rest)
			say("", s, err)
		case "list":
			s, err := r.ListServices()
			say("", s, err)
		case "watch":
			w, err := r.Watch(registry.WatchService(rest))
			if err == nil {
				go tell(w)
			}
			say("", "watching", err)
		}
	})
	return nil
}

func service(text string) (*registry.Service, error) {
	s := new(registry.Service)
	return s, json.Unmarshal([]byte(text), s)
}

// tell says what a watcher sees.
func tell(w registry.Watcher) {
	for {
		e, err := w.Next()
		if err != nil {
			say("end ", nil, err)
			return
		}
		say("event ", e, nil)
	}
}
