package commands

import (
	"fmt"
	"slices"
	"strings"
)

// meaning says when a command ends with the code.
func (c exitCode) meaning() string {
	for _, e := range exitMeanings {
		if e.code == c {
			return e.meaning
		}
	}
	return ""
}

var exitMeanings = [...]struct {
	code    exitCode
	meaning string
}{
	{exitOK, "done; also the clean end of run, registry, subscribe and --watch on Ctrl-C"},
	{exitFailed, "failed in a way that no other code tells"},
	{exitUsage, "wrong command line, or a body that is no JSON or does not fit the endpoint; nothing was sent"},
	{exitNotFound, "no such service, endpoint, node or topic"},
	{exitUnavailable, "the registry, the broker or every node is unreachable, or nobody listens"},
	{exitTimeout, "time ran out, here or at the service"},
	{exitRemote, "the service answered with an error"},
	{exitDenied, "the service refused the caller"},
	{exitCheck, "a check failed: a service is not healthy"},
	{exitPartly, "some of several nodes or messages failed"},
	{exitRun, "run itself failed"},
	{exitNotExecutable, "the target of run cannot be executed"},
	{exitNoTarget, "the target of run was not found"},
	{exitInterrupted, "interrupted (SIGINT)"},
	{exitTerminated, "terminated (SIGTERM)"},
}

// topicNames gives the topics of micro help.
func topicNames() []string { return []string{"output", "exit-codes", "environment", "items"} }

// topic gives a topic's text.
func topic(name string) (string, bool) {
	if !slices.Contains(topicNames(), name) {
		return "", false
	}
	switch name {
	case "exit-codes":
		return exitTopic(), true
	case "environment":
		return environmentTopic, true
	case "items":
		return itemsTopic, true
	}
	return outputTopic, true
}

func exitTopic() string {
	var b strings.Builder
	b.WriteString("Exit codes\n\n")
	for _, e := range exitMeanings {
		fmt.Fprintf(&b, "  %-4d %s\n", int(e.code), e.meaning)
	}
	b.WriteString(`
With -o json or -o jsonl an error is one line of JSON on standard error, and standard output stays empty:

  {"error":{"kind":"not_found","exit":3,"detail":"service \"greter\" not found","hint":["did you mean: greeter"]}}

kind names the exit code. id, code and status stand beside it where a service sent the error.
`)
	return b.String()
}

const outputTopic = `Output

  The answer goes to standard output; notes, progress and errors go to standard error.

  On a terminal an answer is a table with heads, colours and ages (2h). In a pipe it is lines of fields that
  are separated by tabs, without heads and colours, with times as RFC 3339 and the name first. -o changes that:

  -o table   the table, in a pipe too
  -o wide    the table with more columns
  -o json    one JSON document
  -o jsonl   one JSON object a line
  -o yaml    YAML
  -o name    the names alone, one a line
  -o tsv     what a pipe gets, on a terminal too

  -o raw     the bodies alone, as they came (call, stream and subscribe)
  -o pretty  what a terminal gets, in a pipe too (subscribe)

  -q JQ applies a jq expression to the JSON form. Strings print raw:

  micro list nodes -q '.[] | select(.version == "1.4.0") | .address'
  micro call greeter Say.Hello name=x -q .msg

  Colour: --color auto, always or never; NO_COLOR and TERM=dumb turn it off, CLICOLOR_FORCE turns it on.

  Characters that could steer a terminal are shown as escapes (\x1b, \u202e) wherever they come from.
`

const environmentTopic = `Environment

  A flag wins over its variable.

  MICRO_REGISTRY                 --registry           default, local, mdns, gossip, memory, or a server's URL:
                                                      http://, etcd://, consul://, zookeeper://, nats://, dns://
  MICRO_REGISTRY_ADDRESS         --registry-address   the registry's address, as in go-micro
  MICRO_BROKER                   --broker             http, memory, or a server's URL: nats://, rabbitmq://, nsq://
  MICRO_BROKER_ADDRESS           --broker-address     the broker's address, as in go-micro
  MICRO_TRANSPORT                --transport          http, ws://, or a server's URL: nats://, rabbitmq://
  MICRO_CLIENT_REQUEST_TIMEOUT   --timeout            5s, 300ms, 1m
  MICRO_OUTPUT                   --output             table, wide, json, jsonl, yaml, name
  MICRO_COMPLETION_TIMEOUT                            how long a completion may take: 1s
  NO_COLOR, CLICOLOR_FORCE       --color              any value turns colour off, or on
  TERM                                                dumb turns colour off
`

const itemsTopic = `Items

  The body of a call or a message may be written as items, which need no quotes:

  name=Ada           text, or the type that the endpoint's schema gives the field
  times:=3           JSON as it stands: a number, true, null, a list, an object
  tags[]=a tags[]=b  a list
  user.name=Ada      a field of an object
  photo@cat.png      the bytes of a file
  body:=@body.json   JSON from a file

  micro call greeter Say.Hello name=Ada times:=3
`
