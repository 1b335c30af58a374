# Two commands for users: `make demo` shows a whole depot night, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test coverage faults hunt bench run lint lock clean

demo: $(VENV)/run.stamp
	$(BIN)/depot-agent demo $(ARGS)

# Tests that live in real time wait more than they compute: six beside each other, apart
# from those that compute. Coverage nearly doubles the time of those, so that only the
# domain, where power is decided, is held to it here; `make coverage` looks at the whole.
# What failed beside the others (exit 1, all others ran) is run once more, alone and in the
# open: on a machine that somebody else keeps busy a second can be too short for anybody,
# and a fault of ours shows again.
LIVE := tests/integration tests/scenario tests/faults
CORE := tests/unit/domain tests/unit/control
MANY := tests/unit/domain/test_power_invariant.py \
	tests/unit/domain/test_localplan.py::test_a_night_of_a_hundred_is_near_the_optimum
REST := $(filter-out $(CORE) %__pycache__,$(wildcard tests/unit/*)) tests/contract $(wildcard tests/test_*.py)

test: $(VENV)/dev.stamp
	$(BIN)/ruff format --check agent tests bench
	$(BIN)/ruff check agent tests bench
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest -n 6 --dist worksteal $(LIVE) $(ARGS) || { test $$? -eq 1 && \
		$(BIN)/pytest --last-failed --last-failed-no-failures none $(LIVE) $(ARGS); }
	$(BIN)/pytest -n 2 --dist worksteal -m "not many" $(CORE) --cov agent/domain \
		--cov-fail-under 97 --cov-report term:skip-covered $(ARGS)
	$(BIN)/pytest -n 2 --dist worksteal $(MANY) $(REST) $(ARGS)

# Branch coverage of the whole agent by all tests but the thousands; about ten minutes.
coverage: $(VENV)/dev.stamp
	$(BIN)/pytest -n 3 --dist worksteal $(LIVE) --cov --cov-report= --cov-fail-under 0 \
		$(ARGS)
	$(BIN)/pytest -n 2 --dist worksteal -m "not many" tests/unit tests/contract \
		tests/test_*.py --cov --cov-append --cov-report term:skip-covered $(ARGS)

# The long forms of tests/faults/README.md, about half an hour; SEED=n replays one run.
faults: $(VENV)/dev.stamp
	FAULTS_LONG=1 $(BIN)/pytest -n 2 --dist worksteal -rA tests/faults \
		tests/integration/test_doors.py tests/unit/domain/test_power_invariant.py $(ARGS)

# Property tests with examples that nobody has tried yet, TIMES as many as `make test` has
# (which takes the same ones each time); about five minutes.
TIMES ?= 10
hunt: $(VENV)/dev.stamp
	HUNT_TIMES=$(TIMES) $(BIN)/pytest -n 2 --dist worksteal -m hypothesis tests/unit $(ARGS)

bench: $(VENV)/dev.stamp
	$(BIN)/python bench/meter_values.py $(ARGS)
	$(BIN)/python bench/transaction_event.py $(ARGS)

run: $(VENV)/run.stamp
	$(BIN)/depot-agent run --config config/agent.toml

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format agent tests bench
	$(BIN)/ruff check --fix agent tests bench

# Versions with hashes; no index address is written into the files.
lock:
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet pip-tools
	$(VENV)/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header \
		--extra build --output-file requirements.lock pyproject.toml
	$(VENV)/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header \
		--extra dev --output-file requirements-dev.lock pyproject.toml

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/dev.stamp: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-report
