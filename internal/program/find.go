package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"
)

// Find gives the absolute path of the executable that path names: a path, or a name in PATH. It checks what can be
// known before a start, so that a program that cannot run is told of at once: that the file is a file, that it may be
// executed, and that the interpreter of a script is there. The error wraps ErrNotFound or ErrNotExecutable.
func Find(path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%w: no program named", ErrInvalid)
	}
	found, err := lookPath(path)
	if err != nil {
		return "", err
	}
	abs, err := filepath.Abs(found)
	if err != nil {
		return "", fmt.Errorf("program: %s: %w", path, err)
	}
	if runtime.GOOS == "windows" {
		return abs, nil // knows neither first lines nor execute bits
	}
	if err := checkScript(abs); err != nil {
		return "", err
	}
	return abs, nil
}

func lookPath(path string) (string, error) {
	if strings.ContainsRune(path, filepath.Separator) || runtime.GOOS == "windows" && strings.Contains(path, "/") {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("%w: %s", ErrNotFound, path)
		case err != nil:
			return "", fmt.Errorf("%w: %w", ErrNotExecutable, err)
		case info.IsDir():
			return "", fmt.Errorf("%w: %s is a folder", ErrNotExecutable, path)
		case !info.Mode().IsRegular():
			return "", fmt.Errorf("%w: %s is no regular file", ErrNotExecutable, path)
		}
	}
	found, err := exec.LookPath(path)
	switch {
	case err == nil:
		return found, nil
	case errors.Is(err, exec.ErrDot):
		return "", fmt.Errorf("%w: %s is in the current folder, which PATH names: write .%c%s if it is meant",
			ErrNotFound, path, filepath.Separator, path)
	case errors.Is(err, fs.ErrPermission), strings.ContainsRune(path, filepath.Separator):
		return "", fmt.Errorf("%w: %s", ErrNotExecutable, path)
	}
	if info, statErr := os.Stat(path); statErr == nil && info.Mode().IsRegular() {
		return "", fmt.Errorf("%w: %s is not in PATH; write .%c%s for the file in this folder", ErrNotFound, path, filepath.Separator, path)
	}
	return "", fmt.Errorf("%w: %s is not in PATH", ErrNotFound, path)
}

// checkScript looks at the first line of a script as execve(2) will. A text without one could only be run by a shell
// that guesses, and no shell stands between here.
func checkScript(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil // a binary may be executable and not readable
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotExecutable, err)
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrNotExecutable, err)
	}
	head = head[:n]
	if len(head) == 0 {
		return fmt.Errorf("%w: %s is empty", ErrNotExecutable, path)
	}
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		if looksLikeText(head) {
			return fmt.Errorf("%w: %s is a text without a first line that names its interpreter, such as #!/bin/sh", ErrNotExecutable, path)
		}
		return nil
	}
	line, _, _ = bytes.Cut(line, []byte{'\n'})
	return checkInterpreter(path, string(line))
}

func checkInterpreter(path, line string) error {
	if strings.HasSuffix(line, "\r") {
		return fmt.Errorf("%w: %s has the line ends of Windows (CR LF), so its interpreter is not found", ErrNotExecutable, path)
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return fmt.Errorf("%w: the first line of %s names no interpreter", ErrNotExecutable, path)
	}
	if _, err := exec.LookPath(words[0]); err != nil && filepath.IsAbs(words[0]) {
		return fmt.Errorf("%w: %s, the interpreter of %s", ErrNotFound, words[0], path)
	}
	if filepath.Base(words[0]) == "env" && len(words) == 2 && !strings.HasPrefix(words[1], "-") && !strings.Contains(words[1], "=") {
		if _, err := exec.LookPath(words[1]); err != nil {
			return fmt.Errorf("%w: %s, the interpreter of %s, is not in PATH", ErrNotFound, words[1], path)
		}
	}
	return nil
}

// looksLikeText reports whether the beginning of a file is text: UTF-8 without control characters but white space. The
// end may cut a character.
func looksLikeText(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 && len(head) >= utf8.UTFMax || r < ' ' && !strings.ContainsRune("\t\n\r\f\v\x1b", r) {
			return false
		}
		head = head[n:]
	}
	return true
}
