module github.com/cb02dfca/micro/servers/gomicro1

go 1.26.0

require (
	github.com/cb02dfca/micro/servers/gomicropeer v0.0.0
	github.com/micro/go-micro v1.18.0
)

require (
	github.com/go-log/log v0.1.0 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/google/uuid v1.1.1 // indirect
	github.com/micro/mdns v0.3.0 // indirect
	github.com/miekg/dns v1.1.22 // indirect
	github.com/oxtoacart/bpool v0.0.0-20190530202638-03653db5a59c // indirect
	github.com/pkg/errors v0.8.1 // indirect
	github.com/stretchr/testify v1.7.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

replace github.com/cb02dfca/micro/servers/gomicropeer => ../gomicropeer

// A generator that go-micro's go.mod names, and that none of its packages imports. It stands empty here: it is not to be had everywhere.
replace github.com/micro/protoc-gen-micro => ./unused/protoc-gen-micro

// The one that go-micro names, and not what its other requirements would raise it to.
replace github.com/golang/protobuf => github.com/golang/protobuf v1.3.2
