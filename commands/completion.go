package commands

import (
	"context"
	"embed"
	"io"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/internal/suggest"
)

// shells are those that completion has a script for, which stands in the folder completion.
var shells = []string{"bash", "zsh", "fish"}

//go:embed completion
var completionScripts embed.FS

func newCompletion() *command {
	return &command{
		name: "completion", group: "Set up", args: strings.Join(shells, "|"), short: "print the script that completes command lines in a shell", min: 1, max: 1,
		long: "The examples with rc files and folders install it, each in one line; a shell that is started after that completes commands, flags and their values, services, " +
			"endpoints, fields and topics. A completion asks the registry that the line and the environment name, and gives up after 1s, or what " +
			"MICRO_COMPLETION_TIMEOUT says.",
		examples: []string{
			"micro completion bash  # the script",
			"echo 'source <(micro completion bash)' >> ~/.bashrc",
			"echo 'autoload -Uz compinit && compinit; source <(micro completion zsh)' >> ~/.zshrc",
			"mkdir -p ~/.config/fish/completions && micro completion fish > ~/.config/fish/completions/micro.fish",
		},
		run: runCompletion,
	}
}

func runCompletion(_ context.Context, in *invocation) error {
	shell := in.args[0]
	if !slices.Contains(shells, shell) {
		f := usage("no completion for the shell %q, known: %s", shell, strings.Join(shells, ", "))
		if near := suggest.Closest(shell, shells); near != "" {
			f = f.hint("did you mean", "micro completion "+near)
		}
		return f
	}
	script, err := completionScripts.ReadFile("completion/micro." + shell)
	if err != nil {
		return err
	}
	_, err = io.WriteString(in.Stdout, strings.ReplaceAll(string(script), "\r\n", "\n"))
	return err
}
