module example.com/generated

go 1.26.0

require (
	github.com/cb02dfca/micro v0.0.0-00010101000000-000000000000
	github.com/planetscale/vtprotobuf v0.6.1-0.20250313105119-ba97887b0a25
	go.uber.org/goleak v1.3.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/hashicorp/mdns v1.0.7 // indirect
	github.com/miekg/dns v1.1.73 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/cb02dfca/micro => ../..

tool (
	github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto
	google.golang.org/protobuf/cmd/protoc-gen-go
)
