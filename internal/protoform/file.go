package protoform

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// File is a .proto file in the making: services, and the messages that their methods take and give. Make it with [NewFile]. It is
// for one goroutine.
type File struct {
	forms   *Forms
	proto   *descriptorpb.FileDescriptorProto
	imports map[string]protoreflect.FileDescriptor
	names   map[*Form]string
	taken   func(protoreflect.FullName) bool
}

// Method is what a service of a [File] has.
type Method struct {
	Name, Doc string
	// Request and Response are the types of the handler's messages; nil is any JSON.
	Request, Response reflect.Type
	// ClientStreams and ServerStreams say that there may be many of them.
	ClientStreams, ServerStreams bool
}

// NewFile begins a file in a package, which may be empty. taken, which may be nil, reports full names that other files have.
func NewFile(forms *Forms, name, pkg string, taken func(protoreflect.FullName) bool) *File {
	f := &File{forms: forms, imports: map[string]protoreflect.FileDescriptor{}, names: map[*Form]string{}, taken: taken}
	f.proto = &descriptorpb.FileDescriptorProto{Name: &name, Syntax: proto.String("proto3"), SourceCodeInfo: &descriptorpb.SourceCodeInfo{}}
	if pkg != "" {
		f.proto.Package = &pkg
	}
	return f
}

// Descriptor gives the file, and the files that it imports. The file is not added to afterwards.
func (f *File) Descriptor() (*descriptorpb.FileDescriptorProto, []protoreflect.FileDescriptor) {
	var imports []protoreflect.FileDescriptor
	f.proto.Dependency = nil
	for path, fd := range f.imports {
		f.proto.Dependency = append(f.proto.Dependency, path)
		imports = append(imports, fd)
	}
	slices.Sort(f.proto.Dependency)
	return f.proto, imports
}

// The numbers of fields in descriptor.proto, of which a place in a file is made.
const (
	fileMessages, fileServices = 4, 6
	messageFields              = 2
	serviceMethods             = 2
)

// Service adds a service. Names of methods are made identifiers.
func (f *File) Service(name string, methods []Method) {
	index := int32(len(f.proto.Service))
	s := &descriptorpb.ServiceDescriptorProto{Name: proto.String(name)}
	f.proto.Service = append(f.proto.Service, s)
	for i, m := range methods {
		d := &descriptorpb.MethodDescriptorProto{
			Name: proto.String(Identifier(m.Name)), InputType: proto.String(f.reference(m.Request, Identifier(m.Name)+"Request")), OutputType: proto.String(f.reference(m.Response, Identifier(m.Name)+"Response")),
		}
		if m.ClientStreams {
			d.ClientStreaming = proto.Bool(true)
		}
		if m.ServerStreams {
			d.ServerStreaming = proto.Bool(true)
		}
		s.Method = append(s.Method, d)
		f.comment(m.Doc, fileServices, index, serviceMethods, int32(i))
	}
}

// comment says what stands at a place of the file.
func (f *File) comment(text string, path ...int32) {
	if text == "" {
		return
	}
	text = " " + strings.ReplaceAll(text, "\n", "\n ") + "\n"
	f.proto.SourceCodeInfo.Location = append(f.proto.SourceCodeInfo.Location, &descriptorpb.SourceCodeInfo_Location{
		Path: path, Span: []int32{0, 0, 0}, LeadingComments: &text,
	})
}

// reference gives the full name of a type's message, with the dot that begins it. unnamed is the name of one whose type has none.
func (f *File) reference(t reflect.Type, unnamed string) string {
	if t == nil {
		return f.imported(valueDescriptor)
	}
	return f.message(f.forms.Of(t), unnamed)
}

// imported refers to a message of another file.
func (f *File) imported(md protoreflect.MessageDescriptor) string {
	file := md.ParentFile()
	f.imports[file.Path()] = file
	return "." + string(md.FullName())
}

// message refers to the message of a form, which is described where that is the first time.
func (f *File) message(form *Form, unnamed string) string {
	if form.message != nil {
		return f.imported(form.message)
	}
	if name := f.names[form]; name != "" {
		return name
	}
	title := form.title
	if title == "" {
		title = unnamed
	}
	name := f.free(title)
	full := "." + name
	if pkg := f.proto.GetPackage(); pkg != "" {
		full = "." + pkg + "." + name
	}
	f.names[form] = full
	m := &descriptorpb.DescriptorProto{Name: &name}
	index := int32(len(f.proto.MessageType))
	f.proto.MessageType = append(f.proto.MessageType, m)
	names := map[string]bool{}
	for _, fd := range form.fields {
		f.field(m, fd, full, fieldName(fd.name, names))
		f.comment(fd.doc, fileMessages, index, messageFields, int32(len(m.Field)-1))
	}
	return full
}

// free gives a name that no message and no service of the package has.
func (f *File) free(title string) string {
	name := title
	for i := 2; f.used(name); i++ {
		name = title + strconv.Itoa(i)
	}
	return name
}

func (f *File) used(name string) bool {
	full := protoreflect.FullName(name)
	if pkg := f.proto.GetPackage(); pkg != "" {
		full = protoreflect.FullName(pkg + "." + name)
	}
	return f.taken != nil && f.taken(full) ||
		slices.ContainsFunc(f.proto.MessageType, func(m *descriptorpb.DescriptorProto) bool { return m.GetName() == name }) ||
		slices.ContainsFunc(f.proto.Service, func(s *descriptorpb.ServiceDescriptorProto) bool { return s.GetName() == name })
}

// field describes a field of m, whose full name is given.
func (f *File) field(m *descriptorpb.DescriptorProto, fd *field, full, name string) {
	d := &descriptorpb.FieldDescriptorProto{
		Name: &name, JsonName: &fd.name, Number: proto.Int32(int32(fd.number)), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
	m.Field = append(m.Field, d)
	switch fd.label {
	case mapping:
		d.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		d.Type = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum()
		entry := entryName(name)
		d.TypeName = proto.String(full + "." + entry)
		m.NestedType = append(m.NestedType, f.entry(entry, fd, m.GetName()+"_"+name))
		return
	case list:
		d.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	case optional:
		d.Proto3Optional = proto.Bool(true)
		d.OneofIndex = proto.Int32(int32(len(m.OneofDecl)))
		m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("_" + name)})
	}
	f.value(d, fd.shape, m.GetName()+"_"+name)
}

// value says of what type a field is.
func (f *File) value(d *descriptorpb.FieldDescriptorProto, s *shape, unnamed string) {
	d.Type = descriptorpb.FieldDescriptorProto_Type(s.kind).Enum()
	switch {
	case s.form != nil:
		d.TypeName = proto.String(f.message(s.form, unnamed))
	case s.message != nil:
		d.TypeName = proto.String(f.imported(s.message))
	}
}

// entry describes the message that a map's entries are.
func (f *File) entry(name string, fd *field, unnamed string) *descriptorpb.DescriptorProto {
	m := &descriptorpb.DescriptorProto{Name: &name, Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}}
	for i, s := range []*shape{fd.key, fd.shape} {
		d := &descriptorpb.FieldDescriptorProto{
			Name: proto.String([]string{"key", "value"}[i]), Number: proto.Int32(int32(i + 1)), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
		f.value(d, s, unnamed)
		m.Field = append(m.Field, d)
	}
	return m
}

// entryName is the name that protoc gives to the entries of a map's field, which descriptors are held to.
func entryName(field string) string {
	var b strings.Builder
	up := true
	for _, r := range field {
		if r == '_' {
			up = true
			continue
		}
		if up {
			r = unicode.ToUpper(r)
		}
		b.WriteRune(r)
		up = false
	}
	return b.String() + "Entry"
}

// fieldName makes a field's name an identifier that no other field of the message has: not even where case and "_" do not
// matter, since languages that have names of their own for fields could not tell them apart.
func fieldName(json string, names map[string]bool) string {
	base := Identifier(json)
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name = base + "_" + strconv.Itoa(i)
		}
		plain := strings.ToLower(strings.ReplaceAll(name, "_", ""))
		if !names[plain] {
			names[plain] = true
			return name
		}
	}
}

// Identifier makes of a name one that protobuf takes: letters and digits of ASCII and "_", of which a digit is not the first.
func Identifier(name string) string {
	out := []byte(strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '_'
	}, name))
	if len(out) == 0 || out[0] >= '0' && out[0] <= '9' {
		out = append([]byte{'_'}, out...)
	}
	return string(out)
}

// titleOf names the message of a type: as the type where that has a name, else by what it is made of. A struct without a name has none:
// it is named after its place.
func titleOf(t reflect.Type) string {
	t = pointee(t)
	if t.Name() != "" {
		return Identifier(plainName(t.Name()))
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		if elem := titleOf(t.Elem()); elem != "" {
			return upper(elem) + "List"
		}
	case reflect.Map:
		if key, elem := titleOf(t.Key()), titleOf(t.Elem()); key != "" && elem != "" {
			return upper(key) + upper(elem) + "Map"
		}
	case reflect.Interface:
		return "Any"
	case reflect.Struct:
		if t.NumField() == 0 {
			return "Empty"
		}
	}
	return ""
}

// upper makes the first letter of an identifier a capital.
func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// plainName takes the import paths out of a generic type's arguments: "Page[example.com/shop.Item]" is Page_Item.
func plainName(name string) string {
	var b strings.Builder
	part := ""
	for _, r := range strings.TrimRight(name, "]") {
		switch {
		case strings.ContainsRune("[]*, ", r):
			b.WriteString(part + "_")
			part = ""
		case r == '.' || r == '/':
			part = ""
		default:
			part += string(r)
		}
	}
	return b.String() + part
}
