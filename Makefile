# Three commands for work (format, check, test), one to look (demo), six to measure (bench, bench-cache, bench-costs, bench-telemetry,
# faults, resilience), three that take long (soak, kills, mutation).

PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
# Processes that test at once; 0 is the one that was started. Many tests wait for sockets and for programs that they start, so three
# keep two cores busy.
WORKERS ?= 3
CACHE_PEERS ?= .venv-cache-peers
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test format check bench bench-cache bench-costs bench-telemetry faults resilience soak kills mutation build clean

help:  ## Show the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; set PYTHON=..."'
	@echo "Making an environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cli,encryption,numpy,otlp,parquet,plot,postgres,prometheus,redis,simulator]' --group dev
	@touch $@

demo: $(STAMP)  ## Watch the client work against a simulated DeepInfra, without a key
	@$(BIN)/resilient-ai demo

# Bytecode is kept, also where the caller keeps none: tests start hundreds of processes, each of which would compile the package.
test: $(STAMP)  ## Run the tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

format: $(STAMP)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(STAMP)  ## Lint, type-check and check the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy resilient_ai examples tests/typing
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(STAMP)  ## Compare the full stack with bare httpx, side by side
	$(BIN)/python -m benchmarks.overhead

# The folder ignores itself, for git and for ruff.
$(CACHE_PEERS)/.installed: benchmarks/cached_embeddings/peers.txt benchmarks/resilience/install_peers.py
	@echo "Making an environment for the caches of the peers in $(CACHE_PEERS) ..."
	@$(PYTHON) -m benchmarks.cached_embeddings.install_peers $(CACHE_PEERS)
	@echo '*' > $(CACHE_PEERS)/.gitignore
	@touch $@

bench-cache: $(STAMP) $(CACHE_PEERS)/.installed  ## Read 10,000 cached embeddings again, beside LangChain, LiteLLM and SQLite
	$(BIN)/python -m benchmarks.cached_embeddings --peers $(CACHE_PEERS)

bench-costs: $(STAMP)  ## Measure what accounting adds to a call, and how many rows a second the ledger takes
	$(BIN)/python -m benchmarks.accounting
	$(BIN)/python -m benchmarks.ledger_rows

bench-telemetry: $(STAMP)  ## Measure what traces, metrics and log lines add to a call
	$(BIN)/python -m benchmarks.telemetry

$(PEERS)/.installed: benchmarks/resilience/peers.txt benchmarks/resilience/install_peers.py
	@echo "Making an environment for the peers in $(PEERS) ..."
	@$(PYTHON) benchmarks/resilience/install_peers.py $(PEERS)
	@touch $@

resilience: $(STAMP) $(PEERS)/.installed  ## Measure what becomes of calls when things go wrong, beside three peers
	$(BIN)/python -m benchmarks.resilience --peers $(PEERS)

build: $(STAMP)  ## Build the sdist, and the wheel from it
	$(BIN)/python -m build

clean:  ## Remove what the commands made
	rm -rf $(VENV) $(VENV)-newest $(PEERS) $(CACHE_PEERS) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-output

soak: $(STAMP)  ## Look for races for a quarter of an hour: shuffled loops, 2000 seeds
	SOAK_SEEDS=$${SOAK_SEEDS:-2000} $(BIN)/python -m pytest tests/cancellation

faults: $(STAMP)  ## Let a cache store go wrong in every way, and see how long calls wait for it
	$(BIN)/python -m benchmarks.cache_faults

kills: $(STAMP)  ## Kill 200 processes at random moments on each store of a shared cache and on each ledger, and look at what is left
	$(BIN)/python -m benchmarks.cache_kills
	$(BIN)/python -m benchmarks.ledger_kills

mutation: $(STAMP)  ## Change the state machines in every way, and count what the tests notice
	@$(BIN)/python -m pip install --quiet -c constraints.txt --group mutation
	$(BIN)/python -m benchmarks.mutation
