# Two commands on a fresh machine (Python 3.11+ and make): `make demo`, `make test`.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
OUT ?= demo_out
FAULT_TESTS := tests/faults tests/pipelines/test_damage.py tests/pipelines/test_flipped_units.py \
	tests/pipelines/test_crash.py tests/pipelines/test_outages.py tests/jobs/test_damage.py \
	tests/e2e/test_broken_store.py tests/manifests/test_guarded_parquet.py

.PHONY: demo benchmark ablations test check lint types imports unit ray faults fuzz clean help
.DEFAULT_GOAL := help

help: ## What there is to run
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.product: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.product

demo: $(VENV)/.product ## Compose a small manifest on the embedded world, offline; pictures in demo_out/
	$(BIN)/clora demo --out $(OUT)

benchmark: $(VENV)/.product ## Every method on the embedded world; pictures in out/, figures in docs/benchmark.md
	for name in emoji_benchmark emoji_triples emoji_plain emoji_plain_triples emoji_styles; do \
		$(BIN)/clora sweep examples/$$name.yaml && \
		$(BIN)/clora compose out/$$name/job.yaml && \
		$(BIN)/clora report out/$$name || exit 1; \
	done
	for name in emoji_benchmark emoji_triples emoji_plain emoji_plain_triples; do \
		$(BIN)/python -m benchmarks.ceiling out/$$name || exit 1; \
	done
	$(BIN)/python -m benchmarks.page out/emoji_benchmark docs --reference clora-gated \
		--other "Triples" out/emoji_triples \
		--other "Pairs of LoRAs trained in the ordinary way" out/emoji_plain \
		--other "Triples of LoRAs trained in the ordinary way" out/emoji_plain_triples \
		--other "One LoRA in the style of another" out/emoji_styles

ablations: $(VENV)/.product ## Every part of CLoRA on the embedded world; figures in docs/ablations.md
	$(BIN)/clora sweep examples/emoji_ablations.yaml
	$(BIN)/clora compose out/emoji_ablations/job.yaml
	$(BIN)/python -m benchmarks.page out/emoji_ablations docs --title "The ablations of CLoRA"

test: check unit ray ## Every check and test, as CI runs them

check: lint types imports ## Format, lint, spelling, dependencies, types, import layers

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/typos
	$(BIN)/deptry .

types: $(VENV)/.dev
	$(BIN)/pyright

imports: $(VENV)/.dev
	$(BIN)/lint-imports

# A process a processor, up to four, with one thread each: most tests have no use for two.
unit: $(VENV)/.dev ## Tests that need no cluster
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n logical --maxprocesses 4 --dist worksteal -m "not ray and not e2e and not faults" --jaxtyping-packages=clora_core,beartype.beartype

ray: $(VENV)/.dev ## Tests on a local Ray cluster and of the whole product
	$(BIN)/pytest -q -m "(ray or e2e) and not faults"

faults: $(VENV)/.dev ## The whole fault matrix; writes docs/faults.md
	CLORA_FAULTS_TABLE=docs/faults.md $(BIN)/pytest -q $(FAULT_TESTS) -p no:randomly

fuzz: $(VENV)/.dev ## A million damaged LoRA headers, 300,000 mutated rows, every kind of adapter; takes long
	PYTHONPATH=tests:. $(BIN)/python -m fuzz

clean: ## Remove the virtual environment and the demo's output
	rm -rf $(VENV) $(OUT)
