package commands_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/cb02dfca/micro/commands"
)

// generateFolder is a folder of a module with a .proto file, so near this module's go.mod that the generator of messages needs no network.
func generateFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	sums, err := os.ReadFile(filepath.Join("..", "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod":    "module example.com/app\n\ngo 1.26\n\nrequire google.golang.org/protobuf v1.36.12\n",
		"go.sum":    string(sums),
		"say.proto": "syntax = \"proto3\";\nservice Say {\n  rpc Hello(Request) returns (Request);\n}\nmessage Request {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestGenerate is a whole run: what it says, and that a second one has nothing to do.
func TestGenerate(t *testing.T) {
	t.Parallel()
	dir, w := generateFolder(t), newWorld(t)
	file := filepath.Join(dir, "say.proto")
	got := w.run(t, pipe, nil, "generate", "-I", dir, file, "--vt=false")
	want := filepath.Join(dir, "say.pb.go") + "\twritten\t" + file + "\n" + filepath.Join(dir, "say.micro.go") + "\twritten\t" + file + "\n"
	if got.code != 0 || got.stdout != want {
		t.Fatalf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	if got.stderr != "go.mod lacks what the code imports: go get github.com/cb02dfca/micro@latest\n" {
		t.Errorf("it says %q", got.stderr)
	}
	got = w.run(t, pipe, nil, "generate", "-I", dir, file, "--vt=false", "-o", "json", "--quiet")
	var files []struct{ Path, Source, Done string }
	if err := json.Unmarshal([]byte(got.stdout), &files); err != nil || len(files) != 2 || files[1].Done != "unchanged" || got.stderr != "" {
		t.Errorf("%v\n%s%s", err, got.stdout, got.stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "say.micro.go"), []byte("package app\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	got = w.run(t, pipe, nil, "generate", "-I", dir, file, "--vt=false")
	if got.code != 1 || !strings.Contains(got.stderr, "say.micro.go is there, and was not generated: nothing was written\n  write over it: --force\n") {
		t.Errorf("exit %d\n%s", got.code, got.stderr)
	}
	if got = w.run(t, pipe, nil, "generate", "-I", dir, file, "--vt=false", "--force", "-o", "name"); got.code != 0 {
		t.Errorf("exit %d\n%s", got.code, got.stderr)
	}
}

// TestPlugin: under the plugin's name the program answers a compiler.
func TestPlugin(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{"/usr/bin/protoc-gen-micro": true, "protoc-gen-micro.exe": true, "micro": false, "/opt/protoc-gen-micro/micro": false, "protoc-gen-go": false} {
		if got := commands.IsPlugin(path); got != want {
			t.Errorf("IsPlugin(%q) is %t", path, got)
		}
	}
	in, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{"say.proto"}, Parameter: proto.String("paths=source_relative,Msay.proto=example.com/say"),
		ProtoFile: []*descriptorpb.FileDescriptorProto{{
			Name: proto.String("say.proto"), Syntax: proto.String("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Request")}},
			Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Say"), Method: []*descriptorpb.MethodDescriptorProto{
				{Name: proto.String("Hello"), InputType: proto.String(".Request"), OutputType: proto.String(".Request")},
			}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := commands.Plugin(bytes.NewReader(in), &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	var rsp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(stdout.Bytes(), &rsp); err != nil || len(rsp.File) != 1 || rsp.File[0].GetName() != "say.micro.go" {
		t.Errorf("%v, %v", &rsp, err)
	}
	if code := commands.Plugin(strings.NewReader("nonsense"), &stdout, &stderr); code != 1 || !strings.HasPrefix(stderr.String(), "protoc-gen-micro: ") {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}
