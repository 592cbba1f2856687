.DEFAULT_GOAL := help
.PHONY: help build test servers servers-stop lint fuzz bench benchmarks measure picture golden clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build ./micro, stripped
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o micro .

test: ## Install what the tests need, and pass them all
	scripts/test

servers: ## Start what backends stand on, on loopback: etcd, Consul, ZooKeeper, NATS, RabbitMQ, BIND
	scripts/servers build
	scripts/servers start

servers-stop: ## Stop them
	scripts/servers stop

lint: ## gofmt, go vet for three systems, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	for os in linux darwin windows; do GOOS=$$os go vet ./... || exit 1; done
	go tool -modfile=tools/go.mod staticcheck ./...

fuzz: ## Fuzz each parser for half a minute
	scripts/fuzz 30s

bench: ## Measure calls beside other frameworks (an hour), and write docs/performance.md's tables and charts
	cd bench && go run . -doc ../docs/performance.md -charts ../docs/bench

benchmarks: ## Run the packages' benchmarks
	go test -run '^$$' -bench . ./...

measure: ## Measure sizes, start-up and discovery, and write docs/performance.md's tables
	scripts/measure

picture: ## Render docs/first-minute.svg from a real terminal
	scripts/picture

golden: ## Write the command line's golden files anew
	go test ./commands -update

clean: ## Remove what was built
	rm -f micro
