package commands

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

func newVersion() *command {
	return &command{
		name: "version", group: "Set up", short: "show the version of this binary", max: 0,
		examples: []string{"micro version", "micro version -o json"},
		run:      runVersion,
	}
}

// versionValue is the JSON form of the version.
type versionValue struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree that was changed
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func runVersion(ctx context.Context, in *invocation) error {
	v := buildVersion(in.Version)
	return in.print(ctx, result{value: v, names: []string{v.Version}, text: func(w io.Writer, _ palette) error {
		_, err := fmt.Fprintf(w, "micro %s %s/%s %s\n", v.Version, v.OS, v.Arch, v.Go)
		return err
	}})
}

// buildVersion reads what the build left in the binary; given wins.
func buildVersion(given string) versionValue {
	v := versionValue{Version: given, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		v.Version = or(v.Version, "unknown")
		return v
	}
	v.Version = or(v.Version, or(info.Main.Version, "(devel)"))
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
