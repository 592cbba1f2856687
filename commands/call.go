package commands

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/pkg/server"
)

func newCall() *command {
	return &command{
		name: "call", group: "Talk", args: "SERVICE ENDPOINT [BODY | ITEMS...]", short: "call an endpoint and print its answer", min: 1, max: -1,
		long: "SERVICE/ENDPOINT is one argument, and ENDPOINT may be left out where the service has one only. The request is BODY (JSON), " +
			"or ITEMS, or -d; or standard input, where neither is given and it is a pipe or a file; or else {}. It is checked against the " +
			"endpoint's schema before it is sent. An endpoint that streams is streamed. " +
			"SERVICE may be grpc://HOST:PORT, and ENDPOINT then pkg.Service/Method: the server is asked by reflection, or --proto tells.",
		examples: []string{
			"micro call greeter Say.Hello '{\"name\":\"x\"}'",
			"micro call greeter Say.Hello name=x times:=3  # the same without quotes: micro help items",
			"micro call greeter Say.Hello -d @request.json -q .msg",
			"micro call greeter Say.Hello name=x --all -o jsonl  # every node",
			"micro call grpc://127.0.0.1:50051 helloworld.Greeter/SayHello name=x  # any server of gRPC",
		},
		flags:   append(talkFlags(), callFlags()...),
		formats: []string{"raw"},
		exits:   []exitCode{exitNotFound, exitUnavailable, exitTimeout, exitRemote, exitDenied, exitPartly},
		run:     runCall,
	}
}

func newStream() *command {
	return &command{
		name: "stream", group: "Talk", args: "SERVICE ENDPOINT [BODY | ITEMS...]", short: "send JSON values from standard input as they come", min: 1, max: -1,
		long: "The values on standard input, one after another with any white space between, are sent as they come; its end ends the sending, " +
			"and the answers are printed as they come: one a line in a pipe. BODY or ITEMS are the first message. --timeout bounds the whole stream.",
		examples: []string{
			"micro stream greeter Say.Count to=5",
			"tail -f chat.jsonl | micro stream greeter Say.Chat",
			"micro stream greeter Say.Count to=5 -q .n",
		},
		flags:   talkFlags(),
		formats: []string{"raw"},
		exits:   []exitCode{exitNotFound, exitUnavailable, exitTimeout, exitRemote, exitDenied},
		run:     runStream,
	}
}

// talkFlags are the flags that call and stream share.
func talkFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "data", Aliases: []string{"d"}, Usage: "the request, as `BODY`, or @FILE, or @- for standard input"},
		&cli.StringSliceFlag{Name: "header", Aliases: []string{"H"}, Usage: "metadata, as `K:V`; ${NAME} in V is a variable of the environment; may stand several times"},
		&cli.StringFlag{Name: "address", Usage: "call `HOST:PORT`, or the name of --transport's, and ask no registry"},
		&cli.StringFlag{Name: "node", Usage: "only the node with this `ID`"},
		&cli.StringFlag{Name: "version", Usage: "only nodes of version `V`"},
		&cli.BoolFlag{Name: "no-validate", Usage: "send the request even where it does not fit the schema"},
	}, protoFlags()...)
}

func callFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "all", Usage: "call every node, and tell what each answered"},
		&cli.BoolFlag{Name: "include", Aliases: []string{"i"}, Usage: "print the answer's headers too"},
		&cli.BoolFlag{Name: "example", Usage: "print a body to fill in, and call nothing"},
	}
}

// callOptions is what call and stream were asked for.
type callOptions struct {
	service, endpoint      string
	target                 string // the URL of a server of gRPC; empty where a service is named
	protos                 protoFiles
	input                  input
	header                 headers
	address, node, version string
	validate               bool
	all, include, example  bool // call's own
}

func readCallOptions(in *invocation) (callOptions, error) {
	o := callOptions{
		address: in.flags.String("address"), node: in.flags.String("node"), version: in.flags.String("version"),
		validate: !in.flags.Bool("no-validate"), all: in.flags.Bool("all"), include: in.flags.Bool("include"), example: in.flags.Bool("example"),
	}
	words := in.args[1:]
	var err error
	if o.protos, err = in.readProtoFiles(); err != nil {
		return o, err
	}
	var found bool
	if isTarget(in.args[0]) {
		if o.address != "" {
			return o, usage("flag --address: %s names the node already", redacted(in.args[0]))
		}
		if o.target, words, err = readTarget(in.args); err != nil {
			return o, err
		}
		o.endpoint, words = grpcWords(words)
		o.service, o.address = o.target, o.target
	} else if o.service, o.endpoint, found = strings.Cut(in.args[0], "/"); !found && len(words) > 0 && looksLikeName(words[0]) {
		o.endpoint, words = words[0], words[1:]
	}
	switch {
	case o.service == "" || found && o.endpoint == "":
		return o, usage("%q is not SERVICE/ENDPOINT", in.args[0])
	case o.target != "" && (o.node != "" || o.version != "" || o.all):
		return o, usage("%s names the node already: it goes with none of --node, --version and --all", o.target)
	case o.address != "" && (o.node != "" || o.version != "" || o.all):
		return o, usage("flag --address names the node already: it goes with none of --node, --version and --all")
	case strings.Contains(o.address, "://") && strings.ContainsAny(o.address, "@?"):
		return o, usage("flag --address: %q: credentials and parameters do not belong in an address", redacted(o.address))
	case o.all && o.node != "":
		return o, usage("flags --all and --node do not go together")
	}
	if o.header, err = in.readHeaders(); err != nil {
		return o, err
	}
	o.input, err = in.readInput("request body", words, o.header)
	return o, err
}

// looksLikeName tells an endpoint from a body and from an item.
func looksLikeName(word string) bool {
	return word != "-" && !looksLikeBody(word) && !strings.ContainsAny(word, "=@'")
}

func runCall(ctx context.Context, in *invocation) error {
	o, err := readCallOptions(in)
	if err != nil {
		return err
	}
	return in.talk(ctx, o, false)
}

func runStream(ctx context.Context, in *invocation) error {
	o, err := readCallOptions(in)
	if err != nil {
		return err
	}
	return in.talk(ctx, o, true)
}

// talk finds the endpoint and calls it, or streams where it streams. listen has standard input read in any case.
func (in *invocation) talk(ctx context.Context, o callOptions, listen bool) error {
	asking, cancel := in.deadline(ctx)
	defer cancel()
	c, err := in.newCaller(asking, o)
	if err != nil {
		return err
	}
	if o.all {
		if err := c.findNodes(asking); err != nil {
			return err
		}
	}
	if err := c.introduce(asking); err != nil {
		return c.explain(asking, err)
	}
	switch {
	case o.example:
		return in.print(ctx, result{value: c.example(), text: jsonText(in, c.example(), pretty)})
	case c.kind() != server.Unary && o.all:
		return usage("%s streams, and flag --all is for calls", c.o.endpoint)
	case c.kind() != server.Unary, listen && c.known == nil: // a stranger does not tell that it streams
		return c.stream(ctx, listen)
	case listen && !o.input.given && !o.input.stdin && !in.StdinTTY:
		c.o.input.stdin = true // tests and odd parents: what is no terminal has an end
	}
	// The time for the call begins anew where the request came from a pipe: whoever writes it may have been slow.
	body, err := c.request(ctx)
	if err != nil {
		return err
	}
	if o.input.stdin {
		cancel()
		asking, cancel = in.deadline(ctx)
		defer cancel()
	}
	if o.all {
		return c.callAll(asking, body)
	}
	return c.call(asking, body)
}
