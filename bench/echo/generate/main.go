// Command generate writes the generated code of bench/echo: the messages by protoc-gen-go and protoc-gen-go-vtproto, and
// each peer's stubs by its own generator, in a package of their own so that a program links one peer alone. It compiles the
// .proto files itself, so no protoc is needed. The generators are the module's tools, in the versions of go.mod.
//
// Run it in bench: go run ./echo/generate
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const module = "github.com/cb02dfca/micro/bench/"

// sources are the files in the order in which they import each other.
var sources = []string{"message.proto", "echo.proto", "source.proto"}

// job is one run of a generator. Its output goes to the package into, and that of the services' files is declared to be in it.
type job struct {
	tool  string
	into  string
	files []string
	param string
}

var jobs = []job{
	{"protoc-gen-go", "echo", []string{"message.proto"}, ""},
	{"protoc-gen-go-vtproto", "echo", []string{"message.proto"}, "features=marshal+unmarshal+size+pool,pool=" + module + "echo.Message"},
	{"protoc-gen-go-grpc", "echo/grpcecho", []string{"echo.proto", "source.proto"}, ""},
	{"protoc-gen-go-drpc", "echo/drpcecho", []string{"echo.proto", "source.proto"}, ""},
	{"protoc-gen-twirp", "echo/twirpecho", []string{"echo.proto"}, ""},
	{"protoc-gen-go", "echo/connectecho", []string{"echo.proto", "source.proto"}, ""},
	{"protoc-gen-connect-go", "echo/connectecho", []string{"echo.proto", "source.proto"}, "package_suffix"},
}

func main() {
	log.SetFlags(0)
	files, err := compile()
	if err != nil {
		log.Fatalf("generate: %v", err)
	}
	for _, j := range jobs {
		if err := j.run(files); err != nil {
			log.Fatalf("generate: %s into %s: %v", j.tool, j.into, err)
		}
	}
}

// compile gives the descriptors of sources, comments included.
func compile() ([]*descriptorpb.FileDescriptorProto, error) {
	c := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{"echo"}},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := c.Compile(context.Background(), sources...)
	if err != nil {
		return nil, err
	}
	var out []*descriptorpb.FileDescriptorProto
	for _, f := range compiled {
		out = append(out, protodesc.ToFileDescriptorProto(f))
	}
	return out, nil
}

func (j job) run(files []*descriptorpb.FileDescriptorProto) error {
	params := []string{"module=" + module + j.into}
	for _, f := range files {
		if f.GetName() != "message.proto" { // the services have no package of their own
			f.Options = &descriptorpb.FileOptions{GoPackage: proto.String(module + j.into)}
		}
	}
	if j.param != "" {
		params = append(params, j.param)
	}
	in, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: j.files, Parameter: proto.String(strings.Join(params, ",")), ProtoFile: files,
	})
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", j.tool)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return err
	}
	var out pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(raw, &out); err != nil {
		return err
	}
	if out.Error != nil {
		return fmt.Errorf("%s", out.GetError())
	}
	for _, f := range out.File {
		path := filepath.Join(j.into, f.GetName())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
