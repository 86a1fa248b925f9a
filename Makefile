# Everything one needs for working on weir. `make help` lists it.

TOOL := go tool -modfile=tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help build run send check fmt fmt-check vet lint test race soak chaos accuracy oracle fuzz bench bench-receive bench-receive-unix load compare compare-short peers budget profile golden

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the binary, as ./weir
	go build -trimpath -o weir ./cmd/agent

run: ## the agent with all defaults: metrics go to standard output
	go run ./cmd/agent

send: ## a few lines to a running agent
	go run ./cmd/agent send 'page.views:1|c|#env:dev' 'load:0.7|g' 'query.time:12:7:31|ms' 'users:ann|s' 'size:512|d'

check: fmt-check vet lint race ## everything that must hold before a change lands

fmt: ## format
	$(TOOL) gofumpt -w .

fmt-check:
	@unformatted=$$($(TOOL) gofumpt -l .); if [ -n "$$unformatted" ]; then echo "run make fmt: $$unformatted"; exit 1; fi

vet:
	go vet ./...
	GOOS=darwin go vet ./...

lint:
	$(TOOL) staticcheck ./...

test: ## all tests
	go test ./...

race: ## all tests under the race detector
	go test -race ./...

soak: ## a minute of steady load, with and without the race detector: nothing may be lost
	WEIR_SOAK=60s go test ./cmd/agent -run TestSoak -v -count=1

chaos: ## two minutes each: an intake that fails in every way, and kill -9
	WEIR_CHAOS=2m go test ./forwarder -run 'TestChaos|TestKill|TestAfterAnOutage|TestAThousandOutages|TestMemoryWithADeadIntake' -v -count=1

accuracy: ## unique counts of up to 3 million people over 28 days, on 1 and on 20 hosts with a Redis: some 10 minutes
	WEIR_ACCURACY=whole go test ./cmd/agent -run 'TestAccuracy$$' -v -count=1 -timeout 30m

oracle: ## compare with the Datadog Agent's own libraries
	cd internal/oracle && go vet ./... && go test ./...

fuzz: ## each fuzz target for 30 seconds
	@for target in $$(grep -rho --include='*_test.go' 'func Fuzz[A-Za-z]*' . | cut -c 6-); do \
		folder=$$(dirname $$(grep -rl --include='*_test.go' "func $$target(" .)); \
		echo "$$folder $$target"; \
		go test $$folder -run '^$$' -fuzz "^$$target$$" -fuzztime 30s -fuzzminimizetime 10x || exit 1; \
	done

bench: ## the micro-benchmarks, saved to bench.out for benchstat
	go test -run '^$$' -bench 'Sample|Packet|Describe|Hash|Pack|Hostile|Event' -count 5 ./... | tee bench.out
	$(TOOL) benchstat bench.out

bench-receive: ## what receiving a datagram costs, by engine and rate
	go test -run '^$$' -bench 'Receive$$' -count 5 ./listener

bench-receive-unix: ## the same of a Unix socket, and how fast a client can go
	go test -run '^$$' -bench ReceiveUnix -benchtime 1x -count 3 ./listener

load: ## traffic for any StatsD server: make load LOAD='-to 127.0.0.1:8125 -rate 20000' (-help: what else)
	go run ./bench/load $(LOAD)

peers: ## the other StatsD servers that compare knows, into $WEIR_PEERS or the user's cache
	bench/compare/peers.sh

compare: build ## Weir and its peers with the same traffic, as compare.md: 2.5 hours (COMPARE=-help: what to leave out)
	go run ./bench/compare -weir ./weir -out compare.md $(COMPARE)

compare-short: build ## the same with fewer servers and shorter windows: ten minutes
	go run ./bench/compare -weir ./weir -out compare.md -only weir,floor,statsd_exporter,etsy -tags 3 -runs 3 -window 2s \
		-trial 1s -attempts 1 -contexts 100000 -context-runs 1 -limit 10m $(COMPARE)

budget: ## what each stage costs, beside its floor: the table of docs/PERFORMANCE.md
	go run ./bench/budget

profile: ## a CPU profile of the hot path, in cpu.prof
	go test -run '^$$' -bench 'Sample/tags=3/contexts=10000$$' -cpuprofile cpu.prof -o cpu.test ./cmd/agent
	go tool pprof -top cpu.test cpu.prof | head -30

golden: ## accept what the aggregator now makes of the scripts in aggregator/testdata
	go test ./aggregator -run TestGolden -update
