//go:build !unix

package commands

import "os"

// leave ends the process with the exit code of a signal; it cannot send itself one here.
func leave(s os.Signal) { os.Exit(int(signalError{s}.exit())) }
