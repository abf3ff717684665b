# Tourniquet's targets. `make` prints what each one does.
SHELL := /bin/bash
export CGO_ENABLED := 0
export GOTOOLCHAIN := local
GO ?= go
TOOL = GOWORK=off $(GO) run -modfile=$(CURDIR)/tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-kernels check lint walls generate build bench deps

help: ## print this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## run the whole path on this machine: attack, detection, card, cut, proof, release (AUTO=1 presses the button)
	@began=$$(date +%s.%N); scripts/deps demo && DEMO_BEGAN=$$began scripts/demo up

demo-down: ## remove everything that a demo left behind
	@scripts/demo down

test: ## pass all tests; builds what is missing, says what it skips and why
	@scripts/deps test
	@scripts/test

test-kernels: ## run the sensor's tests on Debian's 5.10, 6.1 and 6.12 kernels in an emulator (ONLY=6.1 for one; minutes each)
	@scripts/deps test-kernels
	@$(GO) run ./test/kernels $(if $(ONLY),-only $(ONLY))

check: lint test ## what CI runs, but for the demo

lint: ## linters, determinism of workflows, import walls
	@scripts/lint

generate: ## rebuild generated code, schema and reference (needs clang for bpf)
	@scripts/deps generate
	@$(GO) generate ./...

build: ## build every program into bin/
	@mkdir -p bin
	@$(GO) build -o bin/ ./cmd/... ./worker/... ./starter/... ./sensor/...

bench: ## print benchmarks, one JSON line each
	@scripts/bench
