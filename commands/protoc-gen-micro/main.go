// Protoc-gen-micro is the plugin of protoc and buf that writes clients and handlers of services for this framework, see
// docs/generate.md:
//
//	go install github.com/cb02dfca/micro/commands/protoc-gen-micro@latest
//	protoc --go_out=. --micro_out=. --go_opt=paths=source_relative --micro_opt=paths=source_relative say.proto
//
// The micro binary is the same plugin where it is started under this name. By hand use micro generate, which needs no protoc.
package main

import (
	"fmt"
	"os"

	"github.com/cb02dfca/micro/internal/stub"
)

func main() {
	if err := stub.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "protoc-gen-micro: %v\n", err)
		os.Exit(1)
	}
}
