package commands

import (
	"context"
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/generator"
)

func newGenerate() *command {
	return &command{
		name: "generate", group: "Serve", args: "FILE.proto...", short: "make Go clients and handlers of .proto files", min: 1, max: -1,
		long: "Beside each FILE come its messages, FILE.pb.go by protoc-gen-go, with fast methods in FILE_vtproto.pb.go by vtprotobuf, and its services, FILE.micro.go. " +
			"No protoc is needed, but the go command: it runs the two, in the versions of the go.mod above where that has them, and fetches them where they are not " +
			"at hand. Files are found, and import each other, below --proto-path. Without a go_package a file belongs to the package of its folder. " +
			"All files are written, or on an error none; one that was not generated is never written over without --force.",
		examples: []string{
			"micro generate say.proto",
			"micro generate -I proto --out gen proto/say/v1/say.proto",
			"micro generate --vt=false --package example.com/shop/say say.proto",
			"//go:generate micro generate -I .. say.proto  # a line in a Go file, for go generate",
		},
		flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "proto-path", Aliases: []string{"I"}, Usage: "look for files and imports below `DIR`; may be repeated (default .)"},
			&cli.StringFlag{Name: "out", Usage: "write below `DIR`, by the names below --proto-path (default beside each file)"},
			&cli.StringFlag{Name: "package", Usage: "the Go import `PATH` of the files, in place of their go_package"},
			&cli.StringSliceFlag{Name: "map", Aliases: []string{"M"}, Usage: "the Go import path of one file or import, `NAME=PATH`; may be repeated"},
			&cli.StringFlag{Name: "prefix", Usage: "begin the names of clients and handlers with `NAME`, beside stubs of gRPC"},
			&cli.BoolFlag{Name: "vt", Usage: "make vtprotobuf's methods; --vt=false does without (default: if it can be had)"},
			&cli.BoolFlag{Name: "force", Usage: "write over files that were not generated"},
		},
		run: runGenerate,
	}
}

func runGenerate(ctx context.Context, in *invocation) error {
	if in.timeoutGiven { // else without a bound: tools may have to be fetched first
		var cancel context.CancelFunc
		ctx, cancel = in.deadline(ctx)
		defer cancel()
	}
	o, err := readGenerateOptions(in)
	if err != nil {
		return err
	}
	done := in.waiting("the go command, which makes the messages")
	r, err := generator.Generate(ctx, o)
	done()
	if err != nil {
		return explainGenerate(err)
	}
	for _, w := range r.Warnings {
		in.warn("warning: %s", w)
	}
	if len(r.Missing) > 0 {
		in.warn("go.mod lacks what the code imports: go get %s", strings.Join(r.Missing, " "))
	}
	t := &table{heads: []string{"FILE", "DONE", "SOURCE"}}
	for _, f := range r.Files {
		t.rows = append(t.rows, []cell{text(f.Path), text(f.Done).as(moodOfFile[f.Done]), text(f.Source)})
	}
	return in.print(ctx, result{value: r.Files, table: t})
}

// moodOfFile colours what was done with a file.
var moodOfFile = map[string]mood{generator.Written: good, generator.Unchanged: faint, generator.Removed: warn}

// readGenerateOptions reads the flags.
func readGenerateOptions(in *invocation) (generator.Options, error) {
	o := generator.Options{
		ImportPaths: in.flags.StringSlice("proto-path"), Files: in.args, Out: in.flags.String("out"), Package: in.flags.String("package"),
		Map: map[string]string{}, Prefix: in.flags.String("prefix"), Force: in.flags.Bool("force"), Env: in.Environ(), Tell: in.verbosely,
	}
	for _, pair := range in.flags.StringSlice("map") {
		name, path, ok := strings.Cut(pair, "=")
		if !ok || name == "" || path == "" {
			return o, usage("flag -M: %q is not NAME=PATH, such as other.proto=example.com/other", pair)
		}
		o.Map[name] = path
	}
	switch {
	case !in.flags.IsSet("vt"):
	case in.flags.Bool("vt"):
		o.VT = generator.VTOn
	default:
		o.VT = generator.VTOff
	}
	return o, nil
}

// explainGenerate makes the failure of an error of the generator.
func explainGenerate(err error) error {
	var source generator.SourceErrors
	var tool *generator.ToolError
	var exists *generator.ExistsError
	var argument generator.ArgumentError
	switch {
	case errors.As(err, &source):
		f := fail(exitFailed, "%s", source[0]).because(err)
		for _, more := range source[1:] {
			f = f.line("%s", more)
		}
		return f
	case errors.As(err, &tool):
		f := fail(exitFailed, "%s could not be run", tool.Name).because(err)
		for _, tried := range tool.Tried {
			f = f.line("%s", tried)
		}
		return f.hint("install it", tool.Install)
	case errors.As(err, &exists):
		return fail(exitFailed, "%s", exists).because(err).hint("write over it", "--force")
	case errors.As(err, &argument):
		return usage("%s", err).because(err)
	}
	return err
}
