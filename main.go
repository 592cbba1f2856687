// Micro finds, calls and serves services. Run it without arguments for help.
package main

import (
	"context"
	"os"

	"github.com/cb02dfca/micro/commands"
)

func main() {
	ctx, stop := commands.Signals(context.Background())
	code := commands.Main(ctx, commands.System(os.Args[1:]))
	stop()
	os.Exit(code)
}
