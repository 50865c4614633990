# Every target is one line into a script or a tool; CI runs the same ones.
.DEFAULT_GOAL := help
# With it, each of the hundreds of processes that tests start would compile all of the code.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup setup-run demo run test test-fast lint lock format bench neighbours docs site release measure chaos simulate promises images services services-stop clean

help: ## Say what each target does
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

setup: ## Make .venv/ with everything in it, the haulier command too
	@tools/setup

setup-run: ## Make .venv/ with what it takes to run, the haulier command too
	@tools/setup run

demo: setup-run ## Run a job on this machine, start to end
	@tools/demo

run: setup-run ## Serve on this machine until Ctrl-C
	@.venv/bin/haulier run standalone

test: setup ## Start every service and run every test (ARGS='-k word' for some)
	@tools/services run -- .venv/bin/pytest -n 3 --dist loadgroup $(ARGS)

test-fast: setup ## Run the unit tests: no services, under a minute
	@.venv/bin/pytest tests/unit -n 3 -m "not (docker or rabbitmq or mongodb or slow)" $(ARGS)

lint: setup ## Check style, types and which room imports which
	@tools/lint

lock: ## Write requirements.lock anew, from what pyproject.toml allows now
	@tools/lock

format: setup ## Put the code into shape
	@.venv/bin/ruff check --fix-only --quiet . && .venv/bin/ruff format .

bench: setup ## Measure beside the bare engine's and drivers' own speed
	@tools/services run docker rabbitmq mongodb -- .venv/bin/python -m bench $(ARGS)

neighbours: setup ## Let bad neighbours loose beside a plain user's jobs, and measure what they cost (ARGS='--only NAME')
	@tools/services run docker rabbitmq mongodb -- .venv/bin/python -m bench.neighbours $(ARGS)

docs: setup ## Generate the reference pages from the code
	@.venv/bin/python -m docs $(ARGS)

site: setup ## Build the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

release: setup ## Check and make a release, publishing nothing (ARGS=--tag dates and tags it)
	@tools/release $(ARGS)

measure: setup ## Count files, functions, names; ARGS='--trace --compare REF' for more
	@tools/services run docker rabbitmq mongodb -- tools/measure $(ARGS)

chaos: setup ## Break things for 30 minutes while jobs run, and audit what became of them
	@HAULIER_CHAOS_SECONDS=$${HAULIER_CHAOS_SECONDS:-1800} tools/services run docker rabbitmq mongodb -- .venv/bin/pytest -s tests/chaos/test_chaos.py -k campaign $(ARGS)

simulate: setup ## Play 1,000 simulated histories with faults, on a virtual clock (ARGS='--seed 7' for one)
	@.venv/bin/python -m tests.simulation $(ARGS)

promises: setup ## Run every test of a promise, those that take minutes too
	@HAULIER_LONG=1 tools/services run docker rabbitmq mongodb -- .venv/bin/pytest tests/chaos/test_promises.py tests/acceptance/test_cluster_faults.py $(ARGS)

images: setup ## Have the container images that tests and examples name
	@tools/images

services: setup ## Start the real services, to stay until services-stop
	@tools/services start

services-stop: ## Stop them, leaving nothing
	@tools/services stop

clean: ## Remove all that was made here
	@tools/clean
