package program_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/cb02dfca/micro/internal/program"
	"go.uber.org/goleak"
)

// TestMain makes the test binary the handlers, too: a child is told by CHILD which one to be.
func TestMain(m *testing.M) {
	if role := os.Getenv("CHILD"); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}

func child(role string) int {
	switch role {
	case "panic":
		panic("boom")
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			return 1
		}
	case "args":
		fmt.Printf("%q", os.Args[1:])
	case "runner": // serves one call of a handler that does not end, until it is killed
		p, err := program.New(program.Options{Path: os.Args[1]})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		_, err = p.Run(context.Background(), program.Request{})
		fmt.Fprintln(os.Stderr, err)
	default:
		return 99
	}
	return 0
}
