// Command generate writes the generated code of servers/grpc/say. It compiles the .proto file itself, so no protoc is needed. The
// generators are the module's tools, in the versions of go.mod.
//
// Run it in servers/grpc: go run ./generate
package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	log.SetFlags(0)
	for _, tool := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := run(tool); err != nil {
			log.Fatalf("generate: %s: %v", tool, err)
		}
	}
}

func run(tool string) error {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{"say"}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := c.Compile(context.Background(), "google/protobuf/wrappers.proto", "say.proto")
	if err != nil {
		return err
	}
	var files []*descriptorpb.FileDescriptorProto
	for _, f := range compiled {
		files = append(files, protodesc.ToFileDescriptorProto(f))
	}
	in, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{"say.proto"}, Parameter: proto.String("paths=source_relative"), ProtoFile: files,
	})
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", tool)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return err
	}
	var out pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(raw, &out); err != nil {
		return err
	}
	for _, f := range out.File {
		if err := os.WriteFile(filepath.Join("say", f.GetName()), []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
