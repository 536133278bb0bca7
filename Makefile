# Run `make` or `make help` for what can be made. Every target sets itself up first.
SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
BIN := .venv/bin
# How many processes run tests; xdist takes the number of cores for `auto`.
WORKERS ?= auto
# Whatever is passed on to pytest, such as ARGUMENTS="-k escrow -x".
ARGUMENTS ?=
LINTED := libs/chassis libs/receipts libs/sdl sdk stack services contracts tests tools conftest.py

.PHONY: help
help: ## Print this help
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Make .venv hold the pinned packages and the distributions, if it does not yet
	@# On a terminal pip shows what it fetches; this undoes its --quiet and asks for nothing to be installed anew.
	@if [ -t 1 ]; then export PIP_VERBOSE=1; fi; sh tools/setup.sh

.PHONY: demo
demo: setup ## Start the stack and take one order the whole way
	@exec $(BIN)/fallow demo

.PHONY: up
up: setup ## Start the embedded stack and show what runs, until Ctrl-C
	@exec $(BIN)/fallow up

.PHONY: down
down: setup ## Stop the embedded stack
	@$(BIN)/fallow down

.PHONY: kafka
kafka: setup ## Fetch Apache Kafka by Maven and run one node under .fallow/, until Ctrl-C (Java 17)
	@$(BIN)/python -m fallow_stack.kafka

.PHONY: test
test: setup ## Run the whole ladder of tests; the closing line counts what ran
	@sh tools/test.sh $(WORKERS) $(ARGUMENTS)

.PHONY: test-unit test-tidy test-component test-contract test-e2e test-chaos
test-unit: setup ## Run the unit tests
	@$(BIN)/pytest tests/unit -n $(WORKERS) $(ARGUMENTS)
test-tidy: setup ## Run the programs that check our own rules
	@$(BIN)/pytest tests/tidy $(ARGUMENTS)
test-component: setup ## Run each service alone on real Postgres, NATS and Kafka
	@$(BIN)/pytest tests/component $(ARGUMENTS)
test-contract: setup ## Run the conformance suites and the rules of the API
	@$(BIN)/pytest tests/contract $(ARGUMENTS)
test-e2e: setup ## Run the whole way with real processes
	@$(BIN)/pytest tests/e2e $(ARGUMENTS)
test-chaos: setup ## Kill services between the steps of an order
	@$(BIN)/pytest tests/chaos $(ARGUMENTS)

# How far `make soak` walks, for how many seconds at most (0: as long as it takes), and from which seed.
STEPS ?= 1000000
SOAK_SECONDS ?= 0
SEED ?= 1
.PHONY: soak
soak: setup ## Walk the market for STEPS steps, or SOAK_SECONDS, with crashes and take-overs
	@FALLOW_SOAK_STEPS=$(STEPS) FALLOW_SOAK_SEED=$(SEED) FALLOW_SOAK_SECONDS=$(SOAK_SECONDS) \
		$(BIN)/pytest tests/component/bidding/test_soak.py -n 0 -s -k twice $(ARGUMENTS)

.PHONY: images
images: ## Build the services' container images and list what each holds (Docker or Podman; BASE=… another base)
	@sh tools/images.sh $(ARGUMENTS)

.PHONY: gas
gas: setup ## Measure what the contracts cost and write it into contracts/README.md
	@$(BIN)/python contracts/gas.py

.PHONY: lint
lint: setup ## Run every check that needs no running service
	@sh tools/lint.sh

.PHONY: format
format: setup ## Format the code and mend what a tool can mend
	@$(BIN)/ruff check --fix --quiet $(LINTED) || true
	@$(BIN)/ruff format $(LINTED)
	@$(BIN)/buf format -w proto

.PHONY: proto
proto: setup ## Generate libs/api from proto/
	@$(BIN)/python tools/generate_proto.py

.PHONY: errors
errors: setup ## Generate docs/errors.md from the reasons that the packages register
	@$(BIN)/python tools/generate_errors.py

.PHONY: lock
lock: setup ## Resolve the dependencies of all distributions into constraints.txt
	@$(BIN)/python tools/lock.py $(ARGUMENTS)

.PHONY: clean
clean: ## Remove what was built or cached, but neither .venv nor .fallow
	@rm -rf .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
