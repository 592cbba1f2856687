package commands

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/cb02dfca/micro/internal/stub"
)

// pluginName is the name under which protoc and buf look for the plugin "micro".
const pluginName = "protoc-gen-micro"

// IsPlugin reports whether a program of that path is to be the plugin: a link, or a copy of the binary, that has its name.
func IsPlugin(path string) bool {
	return strings.TrimSuffix(filepath.Base(path), ".exe") == pluginName
}

// Plugin answers the request of protoc or buf on stdin, and gives the exit code.
func Plugin(stdin io.Reader, stdout, stderr io.Writer) int {
	if err := stub.Serve(stdin, stdout); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", pluginName, err)
		return int(exitFailed)
	}
	return int(exitOK)
}
