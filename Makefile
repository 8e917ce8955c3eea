# Two commands matter: `make run` and `make test`. Each first installs what it needs into .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
# The same, with a line for every tenth package and for each large one instead of silence.
PIP_PROGRESS = $(subst --quiet ,,$(PIP)) --progress-bar off -r $(1) | awk \
	'/^Collecting / && ++n % 10 == 0 { print "  " n " packages" } /Downloading .* MB/ { print } \
	/^Installing / { print "  unpacking" } { fflush() }'
# What production has beyond that has to be compiled; without a compiler there is a slower way.
FASTER = echo "Compiling the fast HTTP parser ..." && $(PIP) -r requirements/production.txt 2>/dev/null || \
	echo "Continuing without gunicorn_h1c, the fast HTTP parser: without a C compiler, it cannot be installed."
COMPILE := $(BIN)/uv pip compile --quiet --no-strip-extras --universal --python-version 3.11 --generate-hashes

# Stamps: newer than the lock file if .venv has its packages.
LOCAL := .venv/.local
DEVELOPMENT := .venv/.development
TOOLS := .tools/.installed
BENCH := .tools/bench
DOCS := .tools/docs
CLIENTS := .tools/clients
FAULTS := .tools/faults

# Of other projects and of the user's configuration: .venv gets the packages, and the service its own settings.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONSAFEPATH DJANGO_SETTINGS_MODULE

# pipefail: a step fails if its first command does, not only awk.
SHELL := bash
.SHELLFLAGS := -o pipefail -c

.DEFAULT_GOAL := help
.PHONY: help install run token test coverage check check-clients check-deploy check-image faults sbom bench format messages openapi dashboard screenshots lock \
	docs docs-serve configuration

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(LOCAL) ## the whole service on this machine, with a MongoDB, a Valkey and demo data
	@$(BIN)/python -m conversation_service.development.launcher

token: $(LOCAL) ## print a token, for use as TOKEN=$(make token); USER=name chooses the user, else a new one
	@$(BIN)/python manage.py issue_token $(if $(filter command,$(firstword $(origin USER))),'$(USER)',reader-$(shell od -An -N4 -tx4 /dev/urandom | tr -d ' '))

install: $(DEVELOPMENT) ## set up .venv with everything that development needs

test: $(DEVELOPMENT) ## all tests on all cores, against real servers; ARGS="-k listing" runs some of them
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(or $(ARGS),$(ALL_CORES))

coverage: $(DEVELOPMENT) ## all tests, slower: in Python's development mode, and with the lines that none runs
	@rm -f .coverage .coverage.*
	PYTHONDEVMODE=1 $(BIN)/coverage run -m pytest $(ALL_CORES)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

# Two processes for each core, as a third of the time of the tests is waiting. loadfile runs a test module in one process, so
# that its servers start once; the modules keep the order of tests/conftest.py. Byte code is kept whatever the environment says:
# more than 200 Python processes load it.
ALL_CORES := --numprocesses $(shell expr $$(nproc) \* 2) --dist loadfile --no-loadscope-reorder

check: $(DEVELOPMENT) ## formatting, lint, types, layers, migrations, deployment settings
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	git ls-files | xargs $(BIN)/codespell
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(BIN)/python -m tests.servers $(BIN)/python manage.py makemigrations --check --dry-run
	@env $(PRODUCTION) $(BIN)/python manage.py check --deploy --fail-level WARNING

check-deploy: $(DEVELOPMENT) $(TOOLS) ## scripts, images, manifests, rules and workflows, with the real tools
	.tools/bin/shellcheck scripts/*.sh .ci/run
	.tools/bin/shfmt --indent 4 --case-indent --diff scripts .ci/run
	.tools/bin/hadolint docker/Dockerfile
	.tools/bin/docker-compose config --quiet
	VERSION=1 ALLOWED_HOSTS=x .tools/bin/docker-compose --file docker/compose.staging.yaml config --quiet
	.tools/bin/actionlint -shellcheck .tools/bin/shellcheck
	.tools/bin/zizmor --offline --quiet --persona pedantic .github
	.tools/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.tools/bin/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	.tools/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	PYTHONDEVMODE=1 $(BIN)/python -m pytest -m deployment $(ALL_CORES) --dist worksteal tests/deployment

check-clients: $(DEVELOPMENT) $(CLIENTS)/.installed ## generate four clients from docs/openapi.json, check their types and run them
	$(BIN)/python -m pytest -m clients $(ALL_CORES) tests/clients

faults: $(DEVELOPMENT) $(FAULTS)/.installed ## kill, freeze and cut off servers under load, 15 minutes; ROUNDS=20 for the full numbers (Linux)
	$(BIN)/python -m pytest -m faults tests/faults --rounds $(FAULT_ROUNDS) --kills $$(($(FAULT_ROUNDS) * 15)) \
		--soak-minutes $(FAULT_ROUNDS) --backlog $$(($(FAULT_ROUNDS) * 50000)) $(ARGS)

# ROUNDS of the command line; without it, 2.
FAULT_ROUNDS = $(if $(filter command,$(firstword $(origin ROUNDS))),$(ROUNDS),2)

check-image: $(DEVELOPMENT) $(TOOLS) ## build the image, run development and staging with it (Debian, root); REGISTRY=1: with the Docker of this machine
	@$(BIN)/python -m tests.image $(if $(REGISTRY),--registry)

sbom: $(TOOLS) ## write var/sbom.json, the packages in the image (CycloneDX)
	@mkdir -p var
	@.tools/bin/cyclonedx-py requirements --output-reproducible \
		--outfile=var/sbom.json requirements/production.txt

bench: $(BENCH)/.installed ## what a request costs, against FastAPI and bare WSGI, among SIZE conversations
	@$(BENCH)/bin/python -m benchmarks --size $(SIZE) --rounds $(ROUNDS) --seconds $(SECONDS) \
		$(if $(RECORD),--record)

SIZE := 1000000
ROUNDS := 9
SECONDS := 2

# Valid settings, with random secrets.
PRODUCTION := ENVIRONMENT=production ALLOWED_HOSTS=localhost MONGODB_URL=mongodb://localhost \
	SECRET_KEY=$(shell head -c 48 /dev/urandom | base64) \
	JWT_SECRET_KEY=$(shell head -c 48 /dev/urandom | base64)

format: $(DEVELOPMENT) ## rewrite the code in the one format
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .

messages: $(DEVELOPMENT) ## collect what is to be translated, and compile the translations
	@mkdir -p var
	@for app in conversation_service conversations; do \
		PYTHONPATH=. $(BIN)/pybabel --quiet extract --mapping babel.cfg --no-location --no-wrap \
			--keyword gettext_lazy --output var/$$app.pot $$app && \
		$(BIN)/pybabel --quiet update --no-fuzzy-matching --no-wrap --ignore-pot-creation-date --domain django \
			--ignore-obsolete --input-file var/$$app.pot --output-dir $$app/locale && \
		$(BIN)/pybabel --quiet compile --domain django --directory $$app/locale; \
	done

openapi: $(DEVELOPMENT) ## write docs/openapi.json and docs/collection.json
	ENVIRONMENT=test $(BIN)/python manage.py spectacular --format openapi-json \
		--validate --fail-on-warn --file docs/openapi.json
	$(BIN)/python -m docs_site.collection

screenshots: $(DEVELOPMENT) ## write pictures of the console to docs/img (needs Chromium)
	@DJANGO_SETTINGS_MODULE=config.settings.test $(BIN)/python -m tests.servers \
		$(BIN)/python -m tests.conversations.admin.screenshots

dashboard: $(DEVELOPMENT) ## write the dashboard for Grafana
	$(BIN)/python k8s/components/monitoring/dashboard.py > k8s/components/monitoring/dashboard.json

docs: configuration $(DOCS)/.installed ## build the documentation into var/site
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build
	@echo "Open file://$(CURDIR)/var/site/index.html"

docs-serve: configuration $(DOCS)/.installed ## show the documentation while you write it
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs serve

configuration: $(DEVELOPMENT) ## write docs/configuration.md and .env.example
	@$(BIN)/python -m docs_site.configuration

lock: $(DEVELOPMENT) ## recompile requirements/*.txt from requirements/*.in
	$(COMPILE) requirements/development.in --output-file requirements/development.txt
	$(COMPILE) requirements/production.in --output-file requirements/production.txt \
		--constraint requirements/development.txt
	$(COMPILE) requirements/build.in --output-file requirements/build.txt
	$(COMPILE) requirements/local.in --output-file requirements/local.txt \
		--constraint requirements/development.txt
	$(COMPILE) requirements/deployment.in --output-file requirements/deployment.txt
	$(COMPILE) requirements/benchmark.in --output-file requirements/benchmark.txt \
		--constraint requirements/development.txt
	$(COMPILE) requirements/docs.in --output-file requirements/docs.txt
	$(COMPILE) requirements/clients.in --output-file requirements/clients.txt
	$(COMPILE) requirements/faults.in --output-file requirements/faults.txt

$(DEVELOPMENT): requirements/development.txt | $(BIN)/python
	@echo "Installing the packages for development, about 1 minute ..."
	@$(call PIP_PROGRESS,requirements/development.txt)
	@$(FASTER)
	@touch $(DEVELOPMENT) $(LOCAL)

# Part of development: where that is installed, there is nothing to do. The standard output of `make token` is a token only.
$(LOCAL): requirements/local.txt | $(BIN)/python
	@echo "Installing the packages for running, about 1 minute ..." >&2
	@$(call PIP_PROGRESS,requirements/local.txt) >&2
	@{ $(FASTER); } >&2
	@touch $(LOCAL)

$(TOOLS): requirements/deployment.txt scripts/install-tools.sh
	@echo "Installing what checks deployment files ..."
	@PYTHON=$(PYTHON) scripts/install-tools.sh .tools
	@touch $(TOOLS)

$(BENCH)/.installed: requirements/benchmark.txt
	@echo "Installing what the benchmark needs ..."
	@$(PYTHON) -m venv $(BENCH)
	@$(subst $(BIN),$(BENCH)/bin,$(PIP)) -r requirements/benchmark.txt
	@touch $@

$(DOCS)/.installed: requirements/docs.txt
	@echo "Installing the packages for the documentation, about 1 minute ..."
	@$(PYTHON) -m venv $(DOCS)
	@$(subst $(BIN),$(DOCS)/bin,$(PIP)) -r requirements/docs.txt
	@cd $(DOCS) && bin/npm pack --silent mermaid@$(MERMAID) >/dev/null && \
		echo "$(MERMAID_SHA512)  mermaid-$(MERMAID).tgz" | sha512sum --check --quiet && \
		tar --extract --file mermaid-$(MERMAID).tgz --strip-components=2 package/dist/mermaid.min.js
	@touch $@

$(CLIENTS)/.installed: requirements/clients.txt tests/clients/package.json tests/clients/package-lock.json
	@echo "Installing what generates and compiles clients ..."
	@$(PYTHON) -m venv $(CLIENTS)
	@$(subst $(BIN),$(CLIENTS)/bin,$(PIP)) -r requirements/clients.txt
	@cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)
	@npm ci --prefix $(CLIENTS) --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(FAULTS)/.installed: requirements/faults.txt
	@echo "Installing what sends random requests ..."
	@$(PYTHON) -m venv $(FAULTS)
	@$(subst $(BIN),$(FAULTS)/bin,$(PIP)) -r requirements/faults.txt
	@touch $@

# The version that mkdocs-material would load in the reader's browser.
MERMAID := 11.17.2
MERMAID_SHA512 := 57a2b70bc101744b0f1595d228c25eea9a50384371b87011afd1af1d7e21878ee501b84c443f6a7f8a042bb2e869143150b31af34feab798073bbdda0a578106

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed. PYTHON=python3.12 make run chooses another."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make a virtual environment: apt-get install python3-venv"; exit 1; }
	@echo "Creating the virtual environment .venv ..." >&2
	@$(PYTHON) -m venv .venv
	@rm -f $(LOCAL) $(DEVELOPMENT)
