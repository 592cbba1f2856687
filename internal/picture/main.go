// Picture turns what terminals showed into an SVG. Each argument is a title, "=" and a file with the text and its
// colours as escape codes, as `tmux capture-pane -e` writes them. The picture goes to standard output.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var windows []window
	for _, arg := range args {
		title, path, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("picture: %q: want TITLE=FILE", arg)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("picture: %w", err)
		}
		windows = append(windows, window{title: title, lines: parse(string(text))})
	}
	if len(windows) == 0 {
		return errors.New("picture: nothing to show: want TITLE=FILE, once or more")
	}
	out := bufio.NewWriter(os.Stdout)
	draw(out, windows)
	return out.Flush()
}
