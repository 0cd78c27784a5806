# Two commands carry the project: `make demo` and `make test`. `make` alone lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEOPLE ?= 20000
WAIT ?= 1
EXAMPLES ?= 2000
KILLS ?= 300
HISTORIES ?= 1000
EVENTS ?= 5M
ENGINES ?= duckdb
HISTORY ?= 1M

# Every Airflow task is a process that imports thousands of modules: they are compiled once, when they are installed.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test soak test-long java lint format lock audiences explain erase sql new-destination bench-parse bench-payload bench-segments bench-sync clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
		echo "Rekindle needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is not one: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	@echo "Installing the locked packages into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot create a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@{ $(BIN)/python -m pip install --disable-pip-version-check uv && \
		$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -r requirements.txt; } > $(VENV)/install.log 2>&1 || { \
		echo "The packages could not be installed (no network?): $(VENV)/install.log says why." >&2; exit 2; }
	@touch $@

demo: $(STAMP) ## the whole line in a real Airflow (PEOPLE=20000, DATA=dir of real data, WAIT=0 to end by itself)
	@$(BIN)/python -m include.sandbox demo --people $(PEOPLE) $(if $(DATA),--data "$(DATA)") $(if $(filter 0,$(WAIT)),--no-wait)

test: $(STAMP) lint ## everything: lint, types, SQL cases, units, DAGs, and one run of the whole line
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not line and not long"
	$(BIN)/python -m pytest -m line

soak: $(STAMP) ## random histories in random loads for an hour or more (EXAMPLES=2000), pushes killed at random (KILLS=300), and who is sent (HISTORIES=1000)
	HYPOTHESIS_PROFILE=soak REKINDLE_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -s -m "not line" tests/sql/test_loads.py
	HYPOTHESIS_PROFILE=soak REKINDLE_HISTORIES=$(HISTORIES) $(BIN)/python -m pytest -s -n 0 tests/include/sync/test_policy.py
	REKINDLE_KILLS=$(KILLS) $(BIN)/python -m pytest -s -n 0 tests/include/sync/test_crash.py

test-long: $(STAMP) ## what `make test` leaves out: every test of the warehouse on Spark
	$(BIN)/python -m pytest -m long

java: ## where the Java is that the tests on Spark need; installs one as root with apt-get where there is none
	@.ci/java

lint: $(STAMP) ## ruff, mypy, sqlfluff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint -q sql

format: $(STAMP) ## put the code into the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-parse: $(STAMP) ## what each DAG file costs to parse
	@$(BIN)/python tests/benchmarks/parse.py

bench-segments: $(STAMP) ## tables and segments beside one pass and pandas (EVENTS=5M, ENGINES=duckdb,postgres,spark)
	@$(BIN)/python -m tests.benchmarks.segments --events $(EVENTS) --engines $(ENGINES) \
		$(if $(AGAINST),--against $(AGAINST)) $(if $(LONG),--long-history $(LONG)) $(if $(VERBOSE),--verbose)

bench-sync: $(STAMP) ## one list kept by us, by dlt and by drt, against one local server (PEOPLE=100k, HISTORY=1M, PEERS=0: ours only)
	@$(BIN)/python -m tests.benchmarks.sync --people $(if $(filter file,$(origin PEOPLE)),100k,$(PEOPLE)) --history $(HISTORY) \
		$(if $(filter 0,$(PEERS)),--no-peers)

bench-payload: $(STAMP) ## contacts normalised, hashed and written as requests for Google and Meta, beside a plain loop (PEOPLE=200000)
	@$(BIN)/python -m tests.benchmarks.payload $(if $(filter file,$(origin PEOPLE)),,--people $(PEOPLE))

audiences: $(STAMP) ## read every audience file and say what is wrong, with file and line
	@$(BIN)/python -m include.audiences

erase: $(STAMP) ## erase a person everywhere, now: make erase EMAIL=... (or PHONE, USER_ID, VISITOR_ID, CONTACT_ID)
	@$(BIN)/python -m include.privacy erase $(if $(filter command,$(origin EMAIL)),--email "$$EMAIL") \
		$(if $(filter command,$(origin PHONE)),--phone "$$PHONE") $(if $(filter command,$(origin USER_ID)),--user-id "$$USER_ID") \
		$(if $(filter command,$(origin VISITOR_ID)),--visitor-id "$$VISITOR_ID") \
		$(if $(filter command,$(origin CONTACT_ID)),--contact-id "$$CONTACT_ID")

sql: $(STAMP) ## ask the demo's warehouse: make sql Q="select * from reports.audience_results"
	@$(BIN)/python -m include.sandbox sql "$(Q)"

explain: $(STAMP) ## why is she in, or out: AUDIENCE=.. and EMAIL=, PHONE=, USER_ID=, VISITOR_ID= or PROFILE= (DESTINATION=, RUN=plan, AS_OF=)
	@$(BIN)/python -m include.audiences.explain_command "$(AUDIENCE)" $(if $(EMAIL),--email "$(EMAIL)") \
		$(if $(PHONE),--phone "$(PHONE)") $(if $(USER_ID),--user-id "$(USER_ID)") $(if $(VISITOR_ID),--visitor-id "$(VISITOR_ID)") \
		$(if $(PROFILE),--profile "$(PROFILE)") $(if $(DESTINATION),--destination "$(DESTINATION)") \
		$(if $(RUN),--run "$(RUN)") $(if $(AS_OF),--as-of "$(AS_OF)")

new-destination: $(STAMP) ## write a destination's module, sandbox side, tests and docs to fill in (NAME=acme_mail)
	@$(BIN)/python -m include.scaffold $(NAME)

lock: $(STAMP) ## resolve requirements.in into requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 requirements.in -o requirements.txt

clean: ## remove what demo and tests left behind (the environment stays)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
