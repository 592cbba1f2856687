package stub_test

import (
	"bytes"
	"context"
	"flag"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/cb02dfca/micro/internal/stub"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request compiles files of testdata into what a plugin is asked.
func request(t *testing.T, param string, files ...string) *pluginpb.CodeGeneratorRequest {
	t.Helper()
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{"testdata"}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := c.Compile(context.Background(), files...)
	if err != nil {
		t.Fatal(err)
	}
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: files, Parameter: proto.String(param)}
	seen := map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		req.ProtoFile = append(req.ProtoFile, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, f := range compiled {
		add(f)
	}
	return req
}

// TestGolden holds what is generated for each kind of file to the files of testdata. That it compiles beside the messages, and
// works, is package generator's to test.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, param string
		files       []string
		out         []string
	}{
		{"kinds", "paths=source_relative", []string{"kinds.proto"}, []string{"kinds.micro.go"}},
		{"collisions", "paths=source_relative", []string{"collisions.proto"}, []string{"collisions.micro.go"}},
		{"packages", "paths=source_relative", []string{"packages.proto", "in/in.proto"}, []string{"packages.micro.go"}},
		{"proto2", "paths=source_relative", []string{"two.proto"}, []string{"two.micro.go"}},
		{"editions", "paths=source_relative", []string{"editions.proto"}, []string{"editions.micro.go"}},
		{"prefix", "paths=source_relative,prefix=Micro", []string{"two.proto"}, []string{"two.micro.go"}},
		{"by import path", "", []string{"two.proto"}, []string{"example.com/stub/two/two.micro.go"}},
		{"module", "module=example.com/stub", []string{"two.proto"}, []string{"two/two.micro.go"}},
		{"mapped", "paths=source_relative,Mtwo.proto=example.com/other;other", []string{"two.proto"}, []string{"two.micro.go"}},
		{"no services", "paths=source_relative", []string{"in/in.proto"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			rsp, err := stub.Generate(request(t, tc.param, tc.files...))
			if err != nil || rsp.Error != nil {
				t.Fatalf("%v, %s", err, rsp.GetError())
			}
			var names []string
			for _, f := range rsp.File {
				names = append(names, f.GetName())
				checkGolden(t, strings.ReplaceAll(tc.name, " ", "-")+"."+filepath.Base(f.GetName()), []byte(f.GetContent()))
			}
			if !slices.Equal(names, tc.out) {
				t.Errorf("got the files %q, want %q", names, tc.out)
			}
		})
	}
}

// checkGolden compares code with its golden file, and with what gofmt makes of it.
func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	formatted, err := format.Source(got)
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	if !bytes.Equal(formatted, got) {
		t.Errorf("gofmt would change %s:\n%s", name, got)
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what is generated (go test ./internal/stub -update writes it):\n%s", path, got)
	}
}

// TestRefused: what cannot be generated is told of.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, param, file, want string
		inFiles                 bool // it is the response's error
	}{
		{"same name in Go", "", "twice.proto", "twice.proto:9:3: methods get_it and GetIt of Twice have the same name in Go, GetIt", true},
		{"prefix", "prefix=micro", "two.proto", `"micro" is not the beginning of an exported name`, false},
		{"parameter", "colour=red", "two.proto", "colour", false},
		{"no go_package", "", "nowhere.proto", "nowhere.proto", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			rsp, err := stub.Generate(request(t, tc.param, tc.file))
			got := rsp.GetError()
			if !tc.inFiles {
				if err == nil {
					t.Fatal("no error")
				}
				got = err.Error()
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestServe is a whole exchange with a compiler.
func TestServe(t *testing.T) {
	t.Parallel()
	in, err := proto.Marshal(request(t, "paths=source_relative", "kinds.proto"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := stub.Serve(bytes.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	var rsp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out.Bytes(), &rsp); err != nil || len(rsp.File) != 1 || rsp.File[0].GetName() != "kinds.micro.go" {
		t.Errorf("got %v, %v", &rsp, err)
	}
	want := pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL | pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS
	if rsp.GetSupportedFeatures() != uint64(want) {
		t.Errorf("features %b, want %b", rsp.GetSupportedFeatures(), want)
	}
	for _, wrong := range []string{"", "text"} {
		if err := stub.Serve(strings.NewReader(wrong), &out); err == nil {
			t.Errorf("%q was taken for a request", wrong)
		}
	}
}
