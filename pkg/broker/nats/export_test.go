package nats

import "github.com/cb02dfca/micro/pkg/broker"

// Waiting gives how many messages wait for the handlers of a subscription of core NATS.
func Waiting(s broker.Subscription) int { return s.(*core).sub.Waiting() }

// Consumer gives the name of a subscription's consumer.
func Consumer(s broker.Subscription) string { return s.(*consumer).name }
