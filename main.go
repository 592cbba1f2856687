// Micro finds, calls and serves services. Run it without arguments for help. Started as protoc-gen-micro, by a link of that name, it
// is a plugin of protoc and buf.
package main

import (
	"context"
	"os"

	"github.com/cb02dfca/micro/commands"
)

func main() {
	if commands.IsPlugin(os.Args[0]) {
		os.Exit(commands.Plugin(os.Stdin, os.Stdout, os.Stderr))
	}
	ctx, stop := commands.Signals(context.Background())
	code := commands.Main(ctx, commands.System(os.Args[1:]))
	stop()
	os.Exit(code)
}
