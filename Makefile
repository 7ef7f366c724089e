# What can be typed here. `make` alone lists it; .ci/setup installs what is missing and says nothing when nothing is.

PY := .venv/bin/python
SECONDS := 600
MODE := on
T := tests
JOBS := $(shell nproc)
RUFF := --line-length 118 --target-version py311 --select E,F,W,I,B,UP,SIM,RUF100,PLE \
	--config 'lint.isort.known-first-party = ["edgeblock"]'

.PHONY: help demo test matrix test-vm test-releases test-bounds soak bench bench-peers bench-quick pictures fuzz framing \
	lint lint-ready lint-style lint-types lint-house lint-unit build deb clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo:  ## watch the daemon filter live traffic between a real client and a real server (root)
	@[ "$$(id -u)" = 0 ] || { echo "make demo needs root for its network namespaces: run 'sudo make demo'" >&2; exit 2; }
	@.ci/setup lab
	@.venv/bin/edgeblock demo

test:  ## every test, or T=tests/core/test_tls.py; as root the live ones too; lists the ten slowest
	@[ "$$(id -u)" = 0 ] || echo "Not root: the live tests are left out; 'sudo make test' runs them all." >&2
	@.ci/setup $$([ "$$(id -u)" != 0 ] || echo lab) test
	@$(PY) -m pytest --durations=10 $(if $(filter tests,$(T)),-n $(JOBS) -m "not alone") $(T)
	@$(if $(filter tests,$(T)),$(PY) -m pytest --durations=10 -m alone)

matrix: ## what some twenty real servers serve for a listed host, through a box, in every mode; four minutes (root)
	@[ "$$(id -u)" = 0 ] || { echo "make matrix needs root: run 'sudo make matrix'" >&2; exit 2; }
	@.ci/setup lab test matrix
	@$(PY) -m pytest -q tests/matrix tests/matrix/live.py

test-vm: ## the package under systemd in a container, and nftables on Debian's kernel in a virtual machine (root)
	@[ "$$(id -u)" = 0 ] || { echo "make test-vm needs root: run 'sudo make test-vm'" >&2; exit 2; }
	@.ci/setup lab test vm
	@packaging/build-deb
	@packaging/reproduce
	@$(PY) tests/vm/image.py
	@$(PY) -m pytest -q tests/vm/service.py tests/vm/fleet.py
	@$(PY) tests/vm/boot.py

test-releases: ## the package on Debian 12, 13, the next, and over release upgrades; the core on arm64; an hour (root)
	@.ci/setup lab test vm
	@$(PY) tests/vm/releases.py

test-bounds: ## the unit tests with the lowest and the newest versions of every Python package; half an hour
	@.ci/setup test
	@$(PY) tests/vm/bounds.py

soak:  ## all that happens to a box in a week, under traffic, for SECONDS=600 in MODE=on; WEEK=1: what is left over (root)
	@[ "$$(id -u)" = 0 ] || { echo "make soak needs root: run 'sudo make soak'" >&2; exit 2; }
	@.ci/setup lab test
	@$(PY) tests/live/soak.py --mode $(MODE) $(if $(WEEK),--week $(SOAK),--seconds $(SECONDS))

bench: ## every measurement, in about half an hour: files, plots and report.md under benchmarks/results (root)
	@.ci/setup lab bench
	@$(PY) benchmarks/all.py

bench-peers: ## other filters that take part in make bench where they are: unpacked into build/peers (root)
	@benchmarks/peers/fetch

bench-quick: ## a first look in a few minutes, under benchmarks/results/quick (root)
	@.ci/setup lab bench
	@$(PY) benchmarks/all.py --quick

pictures: ## docs/pictures anew: the demo as it runs, the block page in a browser (root)
	@[ "$$(id -u)" = 0 ] || { echo "make pictures needs root: run 'sudo make pictures'" >&2; exit 2; }
	@.ci/setup lab test bench
	@$(PY) packaging/pictures.py

fuzz:  ## the compiled core under libFuzzer and AddressSanitizer, SECONDS=600 for all games together
	@.ci/setup test fuzz
	@$(PY) -m tests.fuzz.run --seconds $(SECONDS)

framing:  ## odd requests to the HTTP servers here, on loopback, and to the engine: SECONDS=600, at most REQUESTS=...
	@.ci/setup test fuzz
	@$(PY) -m tests.fuzz.framing --seconds $(SECONDS) $(if $(REQUESTS),--requests $(REQUESTS))

lint: lint-style lint-types lint-house lint-unit  ## style, types, layers and house rules

lint-style lint-types lint-house lint-unit: lint-ready

lint-ready:
	@.ci/setup test lint

lint-style:
	@$(PY) -m ruff check $(RUFF) .

lint-types:
	@$(PY) -m mypy

lint-house:
	@$(PY) -m pytest -q tests/test_layers.py tests/test_house.py tests/test_stubs.py

lint-unit:
	@report=$$(systemd-analyze security --offline=true --threshold=20 systemd/edgeblock.service 2>&1) || \
		{ echo "$$report"; echo 'systemd/edgeblock.service: exposure above 2.0' >&2; exit 1; }
	@report=$$(systemd-analyze security --offline=true --threshold=11 systemd/edgeblock-fetch.service 2>&1) || \
		{ echo "$$report"; echo 'systemd/edgeblock-fetch.service: exposure above 1.1' >&2; exit 1; }

build: ## .venv/bin/edgeblock with the compiled core
	@.ci/setup

deb:   ## a Debian package under build, with a Python environment of its own
	@.ci/setup
	@packaging/build-deb

clean: ## removes what the other targets made, the virtual environment included
	@rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .benchmarks .mypy_cache .ruff_cache .coverage* htmlcov
	@find edgeblock \( -name '*.so' -o -name '*.c' ! -name program.c -o -name program.o -o -name international_tables.h \) -delete
	@find . -name __pycache__ -prune -exec rm -rf {} +
