# `make help` lists the targets. Each sets up what it needs in .venv; PYTHON names the Python (3.11 or newer) to make it with.
PYTHON ?= python3
SECONDS ?= 60
BIN := .venv/bin
# uv reads its own variables, not pip's.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick fuzz lint docs bench chaos train-tiny train-l14 clean

help:  ## show this list
	@grep -E '^[a-z0-9 -]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 24

demo: .venv/demo  ## annotate a sample corpus and print what came out (sets up first, about a minute)
	@rm -rf demo
	@$(BIN)/python jobs/sample.py demo/images
	@$(BIN)/ugrie annotate --input demo/images --output demo/output

test: .venv/dev  ## run the tests
	@$(BIN)/python -m pytest

test-quick: .venv/dev  ## run the tests that need no Ray, S3 server or browser, and are not slow
	@$(BIN)/python -m pytest --hypothesis-profile=quick -m "not (ray or cluster or s3 or browser or slow)"

fuzz: .venv/dev  ## try broken images, tables and settings at random, each target for SECONDS (default 60); FOLDER keeps what fails
	@UGRIE_FUZZ_SECONDS=$(SECONDS) UGRIE_FUZZ_FOLDER=$(FOLDER) $(BIN)/python -m pytest tests/fuzz

lint: .venv/dev  ## check format, lint, imports between rooms, and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

docs: .venv/dev  ## write docs/reference.md from the settings, and docs/architecture.svg from the imports
	@$(BIN)/python docs/reference.py docs/reference.md
	@$(BIN)/python docs/architecture.py docs/architecture.svg

bench: .venv/dev .venv-bench/bench  ## run all benchmarks and write benchmarks/results/, some three hours (PHOTOS=DIR: JPEG photos)
	@test -n "$(PHOTOS)" || { echo "make bench PHOTOS=DIR: a folder of JPEG photos"; exit 2; }
	@$(BIN)/python benchmarks/slots.py
	@$(BIN)/python benchmarks/mapper.py
	@$(BIN)/python benchmarks/encoder.py --photos $(PHOTOS)
	@$(BIN)/python benchmarks/precision.py --photos $(PHOTOS)
	@$(BIN)/python benchmarks/host.py
	@$(BIN)/python benchmarks/gpu.py --photos $(PHOTOS) || test $$? -eq 2
	@$(BIN)/python benchmarks/decode.py --photos $(PHOTOS)
	@$(BIN)/python benchmarks/profiles.py --photos $(PHOTOS)
	@$(BIN)/python benchmarks/storage_requests.py
	@$(BIN)/python benchmarks/listing.py
	@$(BIN)/python benchmarks/embeddings.py
	@$(BIN)/python benchmarks/start.py --photos $(PHOTOS)
	@$(BIN)/python benchmarks/dedup.py
	@$(BIN)/python benchmarks/scale.py
	@$(BIN)/python benchmarks/kept_columns.py
	@$(BIN)/python benchmarks/reannotate.py --photos $(PHOTOS)
	@.venv-bench/bin/python benchmarks/hotspots.py --photos $(PHOTOS)
	@.venv-bench/bin/python benchmarks/pipeline.py --photos $(PHOTOS)
	@.venv-bench/bin/python benchmarks/pipeline.py --photos $(PHOTOS) --s3
	@.venv-bench/bin/python benchmarks/pipeline.py --photos $(PHOTOS) --megapixels 12 --smaller 128 --larger 640 --repeats 3
	@.venv-bench/bin/python benchmarks/pipeline.py --photos $(PHOTOS) --tower ViT-B-32 --smaller 128 --larger 512
	@$(BIN)/python benchmarks/plot.py docs/speed.svg
	@$(BIN)/python benchmarks/projection.py docs/scale.md

chaos: .venv/dev  ## kill runs at random moments and compare what comes out (PHOTOS=DIR, N=40, IMAGES=1000; NODES=3 kills nodes, PLANNING=1 while the cluster plans)
	@test -n "$(PHOTOS)" || { echo "make chaos PHOTOS=DIR: a folder of photos"; exit 2; }
	@$(BIN)/python benchmarks/chaos.py --photos $(PHOTOS) --images $(or $(IMAGES),1000) --runs $(or $(N),40) $(if $(PLANNING),--planning) $(if $(NODES),--nodes $(NODES) --kinds node $(if $(PLANNING),planner))

train-tiny train-l14: train-%: .venv/dev  ## train a bundled checkpoint again, with 5 folds, into checkpoints/ (DATA=DIR, see its card)
	@test -n "$(DATA)" || { echo "make $@ DATA=DIR: the folder of the data sets that ugrie/checkpoints/ugrie-$*/MODEL_CARD.md names"; exit 2; }
	@$(BIN)/ugrie train --recipe ugrie/checkpoints/ugrie-$*/recipe.toml --data $(DATA) --output checkpoints/ugrie-$* --folds 5

clean:  ## remove the virtual environment, the demo and caches
	rm -rf .venv .venv-bench demo .ugrie-cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Daft wants another pyarrow than UGRIE: the benchmarks that compare with it have an environment of their own.
.venv/% .venv-bench/%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("UGRIE needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.x …" if sys.version_info < (3, 11) else 0)'
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@test -x $(@D)/bin/uv || $(@D)/bin/pip install --quiet --disable-pip-version-check uv
	@echo "installing UGRIE ($*) into $(@D)"
	@$(@D)/bin/uv pip install --quiet --compile-bytecode --python $(@D)/bin/python -e ".[$*]"
	@touch $@
