# Two commands do all the set-up on a machine with Python 3.11: `make run` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
BUF := $(VENV)/bin/buf
export UV_COMPILE_BYTECODE = 1
export UV_PYTHON_DOWNLOADS = never
# LightGBM's threads wait without spinning: several times faster where cores are shared.
export OMP_WAIT_POLICY = PASSIVE
# One thread of BLAS: matrices here are small.
export OPENBLAS_NUM_THREADS = 1
export MLFLOW_DISABLE_TELEMETRY = true

KERNELS := $(patsubst models/%.c,models/lib%.so,$(wildcard models/*.c))
PROTOS := $(wildcard proto/channelchoice/v1/*.proto)
GENERATED := service/gen

.PHONY: run test install check format demo soak soak-reloads bench bench-commits bench-frames bench-growth bench-ledger bench-quick bench-money evaluate-starbucks lock proto check-proto release-proto clean evaluate-log bench-sharing

## run: install what serving needs, make a starter bundle if there is none, serve, and ask one example question
run: $(VENV)/.serve $(KERNELS)
	$(PY) -m training starter --if-missing var/starter
	$(PY) -m service --bundle var/starter --example

## test: install everything, check the contract, style and types, and pass the tests
test: check $(KERNELS)
	$(PY) -m pytest -n 2

check: $(VENV)/.dev check-proto
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/hadolint Dockerfile

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

## install: everything, for training and for work on the project itself
install: $(VENV)/.dev $(KERNELS)

## evaluate-log: the whole loop on a real log in the folder DATA; `make evaluate-log LOG=starbucks DATA=...` or `LOG=hillstrom`
evaluate-log: $(VENV)/.dev models/libwalk.so
	$(PY) -m training evaluate-log --log $(LOG) --data $(DATA)

evaluate-starbucks: LOG = starbucks
evaluate-starbucks: evaluate-log

## demo: an experiment from beginning to end in the simulated retailer, with its report in MLflow; `make demo DEMO=--help`
demo: $(VENV)/.dev
	$(PY) -m training demo $(DEMO)

## soak: the fault suite in its long form: services and PostgreSQL killed under load, then an independent check; `make soak SOAK=--help`
soak: $(VENV)/.dev
	$(PY) -m tests.faults $(SOAK)

## soak-reloads: bundles swapped under load, then every answer decided again with the bundle that it names
soak-reloads: $(VENV)/.dev
	$(PY) -m tests.faults.reloads $(RELOADS)

## bench: decisions by one model and by response curves, scoring, batches, MLflow's server, latencies and propensities, as ratios of what is measured in the same run
bench: $(VENV)/.dev $(KERNELS)
	$(PY) -m tests.benchmarks --rounds 5

## bench-commits: what sharing commits earns on SQLite and PostgreSQL, beside a commit for each row
bench-commits: $(VENV)/.dev
	$(PY) -m tests.benchmarks.commits

## bench-ledger: what leases of budget save replicas on PostgreSQL, beside one lock for all
bench-ledger: $(VENV)/.dev
	$(PY) -m tests.benchmarks.ledger $(LEDGER)

## bench-frames: time and memory of writing training data of a million decisions, and of training on one and ten million; takes 13 GB of disk
bench-frames: $(VENV)/.dev
	$(PY) -m tests.benchmarks.frames $(FRAMES)

## bench-sharing: what a second process on the same port earns, with what servers, clients and PostgreSQL need of the processors
bench-sharing: $(VENV)/.dev $(KERNELS)
	$(PY) -m tests.benchmarks.sharing $(SHARING)

## bench-quick: decisions and kernels alone, one round, in under two minutes
bench-quick: $(VENV)/.dev $(KERNELS)
	$(PY) -m tests.benchmarks --rounds 1 --calls 100 --parts decisions curves kernels

## bench-growth: CPU per decision against candidates, trees, rules, customers and the log, with a plot
bench-growth: $(VENV)/.dev $(KERNELS)
	$(PY) -m tests.benchmarks.growth --plot docs/growth.svg

## bench-money: what the service, rules by hand, bandit libraries and oracles earn in the simulated retailer; `make bench-money MONEY=--help`
bench-money: $(VENV)/.dev
	$(PY) -m training.world $(MONEY)

# The fast kernels; where there is no C compiler LightGBM scores, and numpy does the rest. Nothing is contracted, so that every machine gives the same to the bit.
models/lib%.so: models/%.c
	cc -O3 -ffp-contract=off -shared -fPIC -o $@ $< || echo "no C compiler: it goes on without $<, slower"

$(VENV)/.uv: requirements/uv.lock
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --require-hashes --requirement requirements/uv.lock
	touch $@

$(VENV)/.serve: $(VENV)/.uv requirements/serve.lock
	$(UV) pip install --quiet --python $(PY) --require-hashes --requirement requirements/serve.lock
	touch $@

$(VENV)/.dev: $(VENV)/.uv requirements/dev.lock
	$(UV) pip install --quiet --python $(PY) --require-hashes --requirement requirements/dev.lock
	touch $@ $(VENV)/.serve

## lock: resolve the dependencies of pyproject.toml again, with hashes and without addresses
lock: $(VENV)/.uv
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" pyproject.toml --extra dev --output-file requirements/dev.lock
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" pyproject.toml --constraint requirements/dev.lock --output-file requirements/serve.lock

## proto: generate service/gen from the contract
proto: $(VENV)/.dev
	rm -rf $(GENERATED)/channelchoice
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iproto --python_out=$(GENERATED) --mypy_out=$(GENERATED) $(PROTOS)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iproto --grpc_python_out=$(GENERATED) --mypy_grpc_out=$(GENERATED) $(filter %_service.proto,$(PROTOS))
	find $(GENERATED)/channelchoice -name '*.py*' -exec sed -i -E \
	    -e 's/^(from|import) channelchoice\b/\1 service.gen.channelchoice/' {} +
	touch $(GENERATED)/channelchoice/__init__.py $(GENERATED)/channelchoice/v1/__init__.py

# What the contract must keep: the style, and everything that the newest release promised.
check-proto: $(VENV)/.dev
	$(BUF) lint
	$(BUF) breaking --against tests/contract/released.binpb

## release-proto: make today's contract the one that later changes must not break
release-proto: $(VENV)/.dev
	$(BUF) build --output tests/contract/released.binpb

clean:
	rm -rf $(VENV) var $(KERNELS)
