package commands

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/pkg/codec"
)

// flagValues gives the values of the flag that the cursor is at: by its name, else by what its help calls its value.
func (c *completion) flagValues(ctx context.Context) []candidate {
	word := strings.TrimPrefix(c.word, c.head)
	if isBool(c.flag) {
		return []candidate{{"true", ""}, {"false", ""}}
	}
	switch c.flag.Names()[0] {
	case "output":
		return c.outputForms()
	case "color":
		return []candidate{{"auto", "on a terminal"}, {"always", ""}, {"never", ""}}
	case "store":
		return slices.DeleteFunc(schemes(c.in.Backends.Registries), func(k candidate) bool {
			return slices.Contains(notBehind, strings.TrimSuffix(k.word, "://"))
		})
	case "registry":
		return schemes(c.in.Backends.Registries, "default", "local", "mdns", "memory", "gossip")
	case "transport":
		return schemes(c.in.Backends.Transports, "http", "ws", "memory")
	case "broker":
		return schemes(c.in.Backends.Brokers(c.in.openRegistry), "http", "memory")
	case "header":
		return c.contentTypes()
	case "schema":
		return []candidate{{"json", "JSON Schema"}}
	case "proto":
		out := c.filesOf(word, ".proto")
		for _, folder := range c.values("proto-path") {
			out = append(out, c.filesBelow(folder, word, ".proto")...)
		}
		return out
	case "map":
		return c.filesOf(word, ".proto")
	case "node":
		return c.nodeIDs(ctx)
	case "address":
		return c.addresses(ctx)
	case "queue":
		return c.queues(ctx)
	case "meta", "version":
		if c.line.cmd.name == "run" { // which gives them
			return nil
		}
		return c.labels(ctx, c.flag.Names()[0])
	case "endpoint", "subscribe":
		if name, file, found := strings.Cut(word, "="); found {
			return prefixed(name+"=", c.filesOf(file))
		}
		return nil
	}
	switch placeholder(c.flag) {
	case "FILE":
		return c.filesOf(word)
	case "DIR", "FOLDER":
		return c.folders(word)
	case "BODY":
		if file, found := strings.CutPrefix(word, "@"); found {
			return prefixed("@", append(c.filesOf(file), candidate{"-", "standard input"}))
		}
		return []candidate{{"@", "the content of a file"}}
	}
	return nil
}

// formMeanings are what the help says of the forms of output, shortly.
var formMeanings = map[string]string{
	"table": "columns with heads", "wide": "the table with more columns", "json": "one JSON document", "jsonl": "a JSON object a line", "yaml": "YAML",
	"name": "the names alone", "tsv": "fields between tabs", "raw": "the bodies as they came", "pretty": "a head and the body for each message",
}

func (c *completion) outputForms() (out []candidate) {
	for _, f := range slices.Concat(formats[:], c.line.cmd.formats) {
		out = append(out, candidate{f, formMeanings[f]})
	}
	return out
}

// schemes gives the names that need no address as they are, and all others as the beginnings of URLs.
func schemes[O any](openers map[string]O, bare ...string) (out []candidate) {
	names := slices.Sorted(maps.Keys(openers))
	for _, name := range bare {
		if slices.Contains(names, name) {
			out = append(out, candidate{name, ""})
		}
	}
	for _, name := range names {
		if name != "default" && name != "memory" {
			out = append(out, candidate{name + "://", "the URL of a server"})
		}
	}
	for i, k := range out {
		if about, known := schemeMeanings[k.word]; known {
			out[i].about = about
		}
	}
	return out
}

var schemeMeanings = map[string]string{
	"default": "this machine's services", "local": "this machine's, by files", "mdns": "by multicast DNS", "memory": "of the same process, for tests",
	"gossip": "those that are met by seeds", "http": "plain HTTP", "ws": "WebSocket", "local://": "by the files of a folder",
	"mdns://": "by multicast DNS", "gossip://": "met by the seed HOST:PORT",
}

// contentTypes gives the header that says in which form a body is.
func (c *completion) contentTypes() []candidate {
	out := []candidate{{"authorization:", "who calls"}}
	sets := slices.Concat(codec.Set{}, c.in.Backends.Codecs, c.in.Backends.Forms)
	for _, k := range sets {
		out = append(out, candidate{"content-type:" + k.ContentType(), "the form of the body"})
	}
	return append(out, candidate{"content-type:application/octet-stream", "bytes as they are"})
}

// files gives those below the folder that the word names.
func (c *completion) files(word string) []candidate { return c.filesOf(or(word, c.word)) }

// filesOf gives files that end so, and folders.
func (c *completion) filesOf(word string, endings ...string) []candidate {
	return c.filesBelow("", word, endings...)
}

// filesBelow is filesOf with names that are read below a folder.
func (c *completion) filesBelow(folder, word string, endings ...string) (out []candidate) {
	for _, e := range c.entries(folder, word) {
		if strings.HasSuffix(e.word, "/") || len(endings) == 0 || slices.ContainsFunc(endings, func(end string) bool { return strings.HasSuffix(e.word, end) }) {
			out = append(out, e)
		}
	}
	return out
}

func (c *completion) folders(word string) []candidate {
	return slices.DeleteFunc(c.entries("", word), func(e candidate) bool { return !strings.HasSuffix(e.word, "/") })
}

// entries lists the folder that word is in, below another one, each entry spelt as word begins; those that begin with a dot where the word does.
func (c *completion) entries(below, word string) (out []candidate) {
	dir, name := word[:strings.LastIndexByte(word, '/')+1], word[strings.LastIndexByte(word, '/')+1:]
	place := or(filepath.Join(below, dir), ".")
	if rest, home := strings.CutPrefix(dir, "~/"); home && below == "" {
		place = filepath.Join(c.in.env("HOME"), rest)
	}
	entries, _ := os.ReadDir(place)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") != strings.HasPrefix(name, ".") {
			continue
		}
		spelt := dir + e.Name()
		if info, err := os.Stat(filepath.Join(place, e.Name())); err == nil && info.IsDir() {
			spelt += "/"
		}
		out = append(out, candidate{spelt, ""})
	}
	return out
}

func prefixed(head string, all []candidate) []candidate {
	for i := range all {
		all[i].word = head + all[i].word
	}
	return all
}
