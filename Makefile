# Everything runs in the project's own .venv, made from the pinned constraints; a second run starts at once.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

.PHONY: demo test check bench bench-scale prove docs format clean

demo: $(READY)  ## the whole journey on the embedded starter
	@$(BIN)/tuition demo

test: $(READY)  ## the test suite
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

check: $(READY)  ## linters, types, import contracts, and docs that agree with the code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python docs/generate.py --check

# make bench DATA=gsm8k_train.jsonl TOKENIZER=FOLDER measures on real rows; without, on random ones of like lengths
# LITGPT=PYTHON adds litgpt, from an environment of its own
ROWS = $(if $(DATA),--data $(DATA) --tokenizer $(TOKENIZER)) $(if $(LITGPT),--litgpt $(LITGPT))

bench: $(READY)  ## speed and memory beside peers, about twenty minutes; results go to benchmarks/results/
	@$(BIN)/python -m benchmarks.step $(ROWS)
	@$(BIN)/python -m benchmarks.step --model 135m --workloads instructions --updates 3 $(ROWS)
	@$(BIN)/python -m benchmarks.prefix
	@$(BIN)/python -m benchmarks.prefix --model 135m --updates 3
	@$(BIN)/python -m benchmarks.prepare

bench-scale: $(READY)  ## memory and time of preparing a million rows
	@$(BIN)/python -m benchmarks.scale
	@$(BIN)/python -m benchmarks.plan
	@$(BIN)/python -m benchmarks.studio

prove: $(READY)  ## the slow proofs: kills, failing disks, damaged files, memory, cost, fuzzing; writes docs/reliability.md
	@$(BIN)/python -m tests.prove

docs: $(READY)  ## write the generated pages of docs/ anew
	@$(BIN)/python docs/generate.py

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "tuition needs Python 3.11 or newer; none was found. Install one, or set PYTHON=…"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned dependencies into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
