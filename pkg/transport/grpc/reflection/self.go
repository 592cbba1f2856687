package reflection

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// fileOf gives the file of reflection itself, in a version: it is described like any other service
// (github.com/grpc/grpc-proto, grpc/reflection/v1/reflection.proto).
func fileOf(version string) protoreflect.FileDescriptor {
	pkg := "grpc.reflection." + version
	f := selfFile{pkg: pkg, proto: &descriptorpb.FileDescriptorProto{
		Name: proto.String("grpc/reflection/" + version + "/reflection.proto"), Package: &pkg, Syntax: proto.String("proto3"),
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("ServerReflection"), Method: []*descriptorpb.MethodDescriptorProto{{
			Name: proto.String("ServerReflectionInfo"), InputType: proto.String("." + pkg + ".ServerReflectionRequest"),
			OutputType: proto.String("." + pkg + ".ServerReflectionResponse"), ClientStreaming: proto.Bool(true), ServerStreaming: proto.Bool(true),
		}}}},
	}}
	f.message("ServerReflectionRequest", "message_request",
		part{name: "host", number: askHost}, part{name: "file_by_filename", number: askFile, choice: true},
		part{name: "file_containing_symbol", number: askSymbol, choice: true},
		part{name: "file_containing_extension", number: askExtension, message: "ExtensionRequest", choice: true},
		part{name: "all_extension_numbers_of_type", number: askExtensionNumbers, choice: true},
		part{name: "list_services", number: askServices, choice: true})
	f.message("ExtensionRequest", "", part{name: "containing_type", number: 1}, part{name: "extension_number", number: 2, kind: int32Kind})
	f.message("ServerReflectionResponse", "message_response",
		part{name: "valid_host", number: tellHost}, part{name: "original_request", number: tellRequest, message: "ServerReflectionRequest"},
		part{name: "file_descriptor_response", number: tellFiles, message: "FileDescriptorResponse", choice: true},
		part{name: "all_extension_numbers_response", number: tellExtensionNumbers, message: "ExtensionNumberResponse", choice: true},
		part{name: "list_services_response", number: tellServices, message: "ListServiceResponse", choice: true},
		part{name: "error_response", number: tellError, message: "ErrorResponse", choice: true})
	f.message("FileDescriptorResponse", "", part{name: "file_descriptor_proto", number: 1, kind: bytesKind, many: true})
	f.message("ExtensionNumberResponse", "", part{name: "base_type_name", number: 1}, part{name: "extension_number", number: 2, kind: int32Kind, many: true})
	f.message("ListServiceResponse", "", part{name: "service", number: 1, message: "ServiceResponse", many: true})
	f.message("ServiceResponse", "", part{name: "name", number: 1})
	f.message("ErrorResponse", "", part{name: "error_code", number: 1, kind: int32Kind}, part{name: "error_message", number: 2})
	return f.file()
}

// Health gives the file of gRPC's health service (github.com/grpc/grpc-proto, grpc/health/v1/health.proto).
func Health() protoreflect.FileDescriptor {
	const pkg = "grpc.health.v1"
	method := func(name string, streams bool) *descriptorpb.MethodDescriptorProto {
		m := &descriptorpb.MethodDescriptorProto{Name: &name, InputType: proto.String("." + pkg + ".HealthCheckRequest"),
			OutputType: proto.String("." + pkg + ".HealthCheckResponse")}
		if streams {
			m.ServerStreaming = &streams
		}
		return m
	}
	f := selfFile{pkg: pkg, proto: &descriptorpb.FileDescriptorProto{
		Name: proto.String("grpc/health/v1/health.proto"), Package: proto.String(pkg), Syntax: proto.String("proto3"),
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Health"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Check", false), method("Watch", true),
		}}},
	}}
	f.message("HealthCheckRequest", "", part{name: "service", number: 1})
	f.message("HealthCheckResponse", "")
	states := &descriptorpb.EnumDescriptorProto{Name: proto.String("ServingStatus")}
	for i, name := range []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"} {
		states.Value = append(states.Value, &descriptorpb.EnumValueDescriptorProto{Name: &name, Number: proto.Int32(int32(i))})
	}
	response := f.proto.MessageType[1]
	response.EnumType = []*descriptorpb.EnumDescriptorProto{states}
	response.Field = []*descriptorpb.FieldDescriptorProto{{Name: proto.String("status"), Number: proto.Int32(1),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum(),
		TypeName: proto.String("." + pkg + ".HealthCheckResponse.ServingStatus")}}
	return f.file()
}

// file makes the file, which is written in this one.
func (f *selfFile) file() protoreflect.FileDescriptor {
	fd, err := protodesc.NewFile(f.proto, nil)
	if err != nil {
		panic(err)
	}
	return fd
}

const (
	int32Kind = descriptorpb.FieldDescriptorProto_TYPE_INT32
	bytesKind = descriptorpb.FieldDescriptorProto_TYPE_BYTES
)

// selfFile is the file in the making, part a field of one of its messages: a string where nothing else is said.
type (
	selfFile struct {
		pkg   string
		proto *descriptorpb.FileDescriptorProto
	}
	part struct {
		name         string
		number       int32
		kind         descriptorpb.FieldDescriptorProto_Type
		message      string
		many, choice bool // choice is one of the message's oneof
	}
)

func (f *selfFile) message(name, oneof string, parts ...part) {
	m := &descriptorpb.DescriptorProto{Name: &name}
	if oneof != "" {
		m.OneofDecl = []*descriptorpb.OneofDescriptorProto{{Name: &oneof}}
	}
	for _, p := range parts {
		d := &descriptorpb.FieldDescriptorProto{Name: proto.String(p.name), Number: proto.Int32(p.number),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()}
		if p.kind != 0 {
			d.Type = p.kind.Enum()
		}
		if p.message != "" {
			d.Type, d.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String("."+f.pkg+"."+p.message)
		}
		if p.many {
			d.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}
		if p.choice {
			d.OneofIndex = proto.Int32(0)
		}
		m.Field = append(m.Field, d)
	}
	f.proto.MessageType = append(f.proto.MessageType, m)
}
