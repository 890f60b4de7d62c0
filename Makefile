# Every verb does its own set-up: a clean clone needs Python 3.11 or newer, Rust, and this file.
# Everything made stays inside the checkout: .venv, target and the tools' own caches.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The first of these that is new enough makes .venv; PYTHON=… chooses another.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do "$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$p"; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
CARGO_FLAGS ?= --locked
# Local builds skip link-time optimisation, which a wheel gets; `make bench` builds with it.
DEVELOP = VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --uv --release $(CARGO_FLAGS)
HAVE_CARGO = command -v cargo >/dev/null || \
	{ echo "error: cargo not found; install Rust (the oldest that will do: rust-version in Cargo.toml)" >&2; exit 1; }
LOCAL_LTO := CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
TESTS ?=
PYTEST_ARGS ?=
# The major version of an installed PostgreSQL to test on, instead of the embedded one.
PG ?=
# A role of `bmdb migrate --roles` to run tests as.
ROLE ?=
BENCH_ARGS ?=
DEMO_ARGS ?=
MINUTES ?= 10
SEED ?=
INTO ?=
# Tests wait more than they compute, so that several processes share even few cores; a file's tests stay together.
# WORKERS=0 runs them one after the other, as some tests alone do, and all on a server of yours, which they would share.
WORKERS ?= $(if $(TESTS)$(BMDB_TEST_CONNINFO),0,4)

SCHEDULES ?= 1000000
# Optimised, like the library beside which it finds most of what it needs built; unoptimised it is a hundred times slower.
SIMULATION = $(LOCAL_LTO) cargo test --release -p bmdb-core --test simulation $(CARGO_FLAGS)

RUST_SOURCES := $(shell find rust -path rust/core/tests -prune -o \( -name '*.rs' -o -name '*.sql' -o -name Cargo.toml \) -print) Cargo.toml $(wildcard Cargo.lock)

.PHONY: help venv demo test screenshots soak ambiguity mutants check audit guarantees generate bench bench-failover bench-takeover bench-pooler bench-churn bench-fleets bench-scale bench-peers bench-zombies bench-quick lock lock-peers wheel clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24
	@echo
	@echo "  make test TESTS=tests/unit          some tests only"
	@echo "  make test WORKERS=0                 one test after the other (4 processes share all tests otherwise)"
	@echo "  make test BMDB_TEST_CONNINFO=…      on a server of yours instead of the embedded one"
	@echo "  make test POOLER=transaction        tests/behaviour through PgBouncer in that mode, or POOLER=session"
	@echo "  make test ROLE=worker               tests/behaviour as that role of bmdb's, on a server of ours"
	@echo "  make test PG=15                     on servers made of an installed PostgreSQL 15"
	@echo "  make venv PYTHON=python3.13         on another interpreter (after make clean)"

venv: $(VENV)/.built ## make .venv: the package, its extras and the tools

$(VENV)/.tools: requirements.lock
	@[[ -n "$(PYTHON)" ]] || { echo "error: no Python 3.11 or newer found; install one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || { echo "error: $(PYTHON) does not run or is older than Python 3.11; say make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' || { echo "error: $(PYTHON) cannot make environments; install its venv package" >&2; exit 1; }
	[[ -x $(BIN)/python ]] || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	@touch $@

$(VENV)/.built: $(VENV)/.tools pyproject.toml $(RUST_SOURCES)
	@$(HAVE_CARGO)
	$(LOCAL_LTO) $(DEVELOP)
	@rm -f $(VENV)/.optimised
	@touch $@

$(VENV)/.optimised: $(VENV)/.tools pyproject.toml $(RUST_SOURCES)
	@$(HAVE_CARGO)
	$(DEVELOP)
	@touch $(VENV)/.built $@

demo: venv ## leased work survives a killed worker: a rack of machines, eight workers, under a minute
	$(BIN)/python -m bmdb demo $(DEMO_ARGS)

# The pages are tested in a browser, which `make test` installs where it may, if those tests are to run.
BROWSER_TESTS = $(if $(TESTS),$(findstring web,$(TESTS)),web)

test: venv ## all tests: the core's in Rust, then everything else with pytest
	$(if $(BROWSER_TESTS),tools/install_chromium.sh)
	cargo test -p bmdb-core $(CARGO_FLAGS)
	$(SIMULATION)
	$(if $(PG),BMDB_TEST_PG=$(PG)) $(if $(POOLER),BMDB_TEST_POOLER=$(POOLER)) $(if $(ROLE),BMDB_TEST_ROLE=$(ROLE)) \
		$(BIN)/python -m pytest --numprocesses $(WORKERS) \
		--dist loadfile $(PYTEST_ARGS) $(if $(POOLER)$(ROLE),$(or $(TESTS),tests/behaviour),$(TESTS))

screenshots: venv ## take the pictures of the debug pages in docs/web, of a fleet at work
	tools/install_chromium.sh
	$(BIN)/python -m tests.web.screenshots

soak: venv ## SCHEDULES=1000000 simulated, then the chaos test for MINUTES=10, with SEED=… of an earlier run; its page goes INTO=target/soak/…
	SIMULATION_SCHEDULES=$(SCHEDULES) $(SIMULATION)
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(INTO),--into $(INTO))

ambiguity: venv ## kill the connection before, in and after COMMIT, ROUNDS=1000 times, with SEED=… of an earlier run
	$(BIN)/python -m tests.faults.ambiguity --rounds $(or $(ROUNDS),1000) $(if $(SEED),--seed $(SEED))

mutants: venv ## take promises out of the library one at a time: the tests must notice (a build and some minutes)
	$(BIN)/python -m tests.chaos.mutants

check: venv ## every gate that runs no database: format, lint, types, contracts, generated code, dependencies
	cargo fmt --all --check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/generate_sync.py --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m mypy
	$(BIN)/pyright
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tests/typing/stubtest-allowlist.txt bmdb._core
	cargo clippy --workspace --all-targets $(CARGO_FLAGS) -- -D warnings
	$(BIN)/python tools/audit.py
	$(BIN)/python -m pytest tests/architecture

audit: $(VENV)/.tools ## known holes in dependencies: advisories, licences, sources; says what it cannot fetch
	@$(HAVE_CARGO)
	$(BIN)/python tools/audit.py

guarantees: venv ## run the tests of all faults, with PG=15 on another PostgreSQL, and write docs/guarantees.md's table
	$(if $(PG),BMDB_TEST_PG=$(PG)) $(BIN)/python tools/guarantees.py --measure

generate: $(VENV)/.tools ## write python/bmdb/_sync and the sync tests anew from their async sources
	$(BIN)/python tools/generate_sync.py

bench: $(VENV)/.optimised ## measure, and write docs/benchmarks.md anew
	$(BIN)/python benches/run.py $(BENCH_ARGS)

bench-failover: $(VENV)/.optimised ## measure what workers see of a failover, and write it into docs/high-availability.md
	$(BIN)/python benches/failover.py $(BENCH_ARGS)

bench-takeover: $(VENV)/.optimised ## measure how soon another worker takes over, and write it into docs/guarantees.md
	$(BIN)/python benches/takeover.py $(BENCH_ARGS)

PEERS := benches/peers
# Of the peers, oban asks for a newer Python than bmdb does; its adapter says what that comes to.
$(PEERS)/.venv/.made: $(PEERS)/requirements.lock $(VENV)/.tools
	[[ -x $(PEERS)/.venv/bin/python ]] || $(BIN)/python -m venv $(PEERS)/.venv
	$(PEERS)/.venv/bin/python -m pip install --quiet --no-deps --require-hashes --ignore-requires-python --requirement $<
	@touch $@

# Programs of peers in other languages, where their tools are there; the harness says what it leaves out.
$(PEERS)/river/bin/worker: $(PEERS)/river/main.go $(PEERS)/river/go.mod $(PEERS)/river/go.sum
	@if command -v go >/dev/null; then cd $(PEERS)/river && go build -o bin/worker . || echo "no program for River"; fi

$(PEERS)/graphile/node_modules/.made: $(PEERS)/graphile/package-lock.json
	@if command -v npm >/dev/null; then cd $(PEERS)/graphile && npm ci --silent --no-audit --no-fund \
		&& touch node_modules/.made || echo "no packages for graphile-worker"; fi

PEERS_MADE := $(PEERS)/.venv/.made $(PEERS)/river/bin/worker $(PEERS)/graphile/node_modules/.made

bench-peers: $(VENV)/.optimised $(PEERS_MADE) ## measure bmdb beside other queues, and write docs/benchmarks.md's section of them
	$(BIN)/python $(PEERS)/run.py $(BENCH_ARGS)

bench-zombies: venv $(PEERS)/.venv/.made ## count what stale workers still get done, bmdb's and four peers', into docs/guarantees.md
	$(BIN)/python $(PEERS)/stale.py $(BENCH_ARGS)

bench-quick: venv $(PEERS_MADE) ## the same with few units, within three minutes; prints the ratios only
	$(BIN)/python $(PEERS)/run.py --quick $(BENCH_ARGS)

lock-peers: $(VENV)/.tools ## bring the peers' lock file up to date with its requirements.in (UPGRADE=1: newest versions)
	$(BIN)/uv pip compile $(PEERS)/requirements.in --universal --python-version 3.12 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock-peers" --quiet \
		$(if $(UPGRADE),--upgrade) --output-file $(PEERS)/requirements.lock

bench-fleets: $(VENV)/.optimised ## measure what a lease costs in fleets of up to a million, and write that into docs/scale.md
	$(BIN)/python benches/fleets.py $(BENCH_ARGS)

bench-pooler: $(VENV)/.optimised ## measure what pooler=True costs, and write that into docs/poolers.md
	$(BIN)/python benches/pooler.py

bench-churn: $(VENV)/.optimised ## lease a million times with and without a snapshot held open, and write that into docs/scale.md
	$(BIN)/python benches/churn.py $(BENCH_ARGS)

bench-scale: $(VENV)/.optimised ## measure what sessions, beats and acts cost, and write that into docs/scale.md
	$(BIN)/python benches/scale.py $(BENCH_ARGS)

lock: $(VENV)/.tools ## bring requirements.lock up to date with pyproject.toml (UPGRADE=1: newest versions)
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --group dev --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
		$(if $(UPGRADE),--upgrade) --output-file requirements.lock

wheel: $(VENV)/.tools ## build the abi3 wheel into dist
	$(BIN)/maturin build --release $(CARGO_FLAGS) --out dist

clean: ## remove all that the other targets made
	rm -rf $(VENV) $(PEERS)/.venv $(PEERS)/river/bin $(PEERS)/graphile/node_modules target dist .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find python tests tools benches examples \( -name __pycache__ -prune -o -name '*.so' \) -exec rm -rf {} +
