# `make` lists what there is. Everything is kept in .venv/ and .tox/; a second run downloads and installs nothing.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help test test-long test-oldest test-turn test-all unit lint type docs record hooks changelog release format ceph swift backends clients audit reference licences mutants seams demo \
	demo-on-seaweedfs demo-on-ceph demo-on-another dev bench wheel clean FORCE

# The newest Rucio that is supported, and the Python to use: make test RUCIO=40 PYTHON=python3.12
RUCIO := 41
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
endif

# What the demo stores its files in.
STORAGE := seaweedfs

TOX := .venv/tools/bin/tox run
PIP := bin/python -m pip --disable-pip-version-check -qq
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
WHEEL := .venv/dist/rucio_s3-$(VERSION)-py3-none-any.whl
SOURCES := $(shell find lib -type f -not -path '*/__pycache__/*' -not -path '*.egg-info/*') pyproject.toml setup.py README.md LICENSE

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

test: export RUCIO_S3_TOOLS := $(CURDIR)/.venv/interop/bin
test: .venv/tools/.done .venv/interop/.done  ## all checks and all tests, against the newest Rucio
	$(TOX) -e lint,type,docs,rucio$(RUCIO)

# CI has time for a part of these, each day another one.
LONG := tests/attacks tests/backends tests/faults tests/interop tests/integration

test-long: export RUCIO_S3_TEST_LONG := 1
test-long: export RUCIO_S3_TOOLS := $(CURDIR)/.venv/interop/bin
test-long: export RUCIO_S3_TEST_CEPH := $(CURDIR)/.venv/ceph
test-long: export RUCIO_S3_TEST_SWIFT := $(CURDIR)/.venv/swift
test-long: .venv/tools/.done .venv/interop/.done  ## the tests that take minutes: random runs of the reconciler, copies, what the storages do
	$(TOX) -e rucio$(RUCIO) -- --loadscope-reorder -m long $(LONG)

test-oldest: .venv/tools/.done  ## the unit tests with a client's Rucio; these and a few others with the oldest Rucio
	$(TOX) -e clients,rucio38-smoke

# A client's machine, or one of the older Rucios with another Python: CI has time for one of them, each day another.
TURNS := clients turn-rucio38-smoke turn-rucio39-smoke turn-rucio40
TURN := $(word $(shell echo $$(($$(date +%s) / 86400 % 4 + 1))),$(TURNS))

test-turn: export RUCIO_S3_TOOLS := $(CURDIR)/.venv/interop/bin
test-turn: .venv/tools/.done .venv/interop/.done  ## the tests of another environment, each day another: all with Rucio 40, the unit tests and a few others elsewhere (TURN=turn-rucio39-smoke)
	$(TOX) -e $(TURN)

test-all: .venv/tools/.done  ## all tests, against each Rucio and with each Python that is here
	$(TOX)

unit: .venv/tools/.done  ## the unit tests, against the newest Rucio
	$(TOX) -e rucio$(RUCIO) -- tests/unit

lint: .venv/tools/.done  ## ruff
	$(TOX) -e lint

type: .venv/tools/.done  ## mypy
	$(TOX) -e type

docs: .venv/tools/.done  ## build the documentation as a site, in .venv/docs
	$(TOX) -e docs

record: dev .venv/interop/.done  ## run the terminal sessions in README and docs/, and write what they print
	.venv/dev/bin/python dev/record.py

format: .venv/tools/.done  ## let ruff put the code in order
	$(TOX) -e format

ceph: .venv/ceph/trixie/.done .venv/ceph/sid/.done  ## unpack the Ceph of newer Debian releases, for the tests (300 MB to download; needs apt-get)

swift: .venv/swift/.done  ## install OpenStack Swift, for the tests

backends: export RUCIO_S3_TOOLS := $(CURDIR)/.venv/interop/bin
backends: export RUCIO_S3_TEST_CEPH := $(CURDIR)/.venv/ceph
backends: export RUCIO_S3_TEST_SWIFT := $(CURDIR)/.venv/swift
backends: dev .venv/interop/.done  ## measure the S3 storages that are installed, and write docs/backends.md
	PYTHONPATH=tests .venv/dev/bin/python -m backends

clients: export RUCIO_S3_TOOLS := $(CURDIR)/.venv/interop/bin
clients: dev .venv/interop/.done  ## try what each S3 tool can do, and write the tables of docs/clients.md
	RUCIO_S3_TEST_LONG=1 RUCIO_S3_WRITE=1 .venv/dev/bin/python -m pytest tests/interop/test_table.py

audit: .venv/tools/.done .venv/audit/.done  ## known vulnerabilities of what is installed for the tests, where PyPI tells
	$(TOX) -qe rucio$(RUCIO) --notest
	.venv/audit/bin/python dev/audit.py "$$(.tox/rucio$(RUCIO)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

reference: dev  ## write the tables of docs/rest-api.md and docs/settings.md
	.venv/dev/bin/python dev/reference.py

licences: dev  ## write docs/licences.md
	.venv/dev/bin/python dev/licences.py

mutants: dev .venv/dev/.mutants  ## change the code in small ways, and see whether a unit test notices (SEED=2 N=1000 MODULES='core/s3/auth common/s3')
	.venv/dev/bin/python dev/mutation --seed $(or $(SEED),1) --number $(or $(N),400) $(MODULES)

# A source has no metadata of a package, so that it is put before the Rucio of .venv/dev, which has what it requires.
seams: dev  ## whether a source of Rucio, such as its main branch, still has what is changed in it, and its private API (SOURCE=../rucio)
	@test -d '$(SOURCE)/lib/rucio' || { echo 'SOURCE names no source of Rucio: make seams SOURCE=../rucio' >&2; exit 1; }
	rm -rf .venv/source && mkdir .venv/source && cp -r '$(SOURCE)/lib/rucio' .venv/source
	.venv/dev/bin/python dev/link.py .venv/source
	PYTHONPATH=.venv/source .venv/dev/bin/python -m pytest -q tests/unit/test_seams.py tests/unit/test_rucio_internals.py

demo: export RUCIO_S3_TEST_CEPH := $(CURDIR)/.venv/ceph
demo: demo-on-$(or $(filter seaweedfs ceph,$(STORAGE)),another) .venv/demo/.wheel  ## an S3 server, a Rucio server, and stock commands that use them (KEEP=1: leave them running; STORAGE=ceph)
	.venv/demo/bin/python demo/demo.py --storage $(STORAGE) $(if $(KEEP),--keep)

demo-on-seaweedfs:
demo-on-ceph: .venv/ceph/sid/.done
demo-on-another:
	@echo 'STORAGE=$(STORAGE) is not one that the demo can start. Choose STORAGE=seaweedfs (the default) or STORAGE=ceph.' >&2; exit 1

dev: .venv/dev/.done  ## an environment with lib/ linked into stock Rucio: edits take effect at once
	.venv/dev/bin/python dev/link.py
	@echo 'Use it with: . .venv/dev/bin/activate'

bench: dev .venv/interop/.done  ## measure transfers against other tools (BENCH='--rounds 5 --write', see docs/performance.md)
	.venv/dev/bin/python bench/bench.py $(BENCH)

hooks: .venv/maintainer/.done  ## check each commit before it is made: ruff, mypy, the documentation
	.venv/maintainer/bin/pre-commit install

changelog: .venv/maintainer/.done  ## write the notes of changes/ into CHANGELOG.md (DRAFT=1: show them only)
	.venv/maintainer/bin/towncrier build --version $(VERSION) $(if $(DRAFT),--draft,--yes)

release: $(WHEEL) .venv/maintainer/.done  ## build the wheel and the source distribution, and check them in new environments; publishes nothing
	.venv/maintainer/bin/python dev/release.py $(WHEEL)

wheel: $(WHEEL)  ## build the wheel, in .venv/dist

clean:  ## remove all that was made here
	rm -rf .venv .tox build lib/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Changes when another Python is asked for, and with it every environment.
.venv/python: FORCE
	@test -n '$(PYTHON)' || { echo "rucio-s3 needs Python 3.10 to 3.13, but python3 is $$(python3 --version 2>/dev/null || echo missing)." \
		'Install one of them, or name it: make PYTHON=/path/to/python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot make environments.' \
		'Install its venv (on Debian and Ubuntu: apt-get install python3-venv).' >&2; exit 1; }
	@mkdir -p $(@D)
	@seen="$$($(PYTHON) -c 'import sys; print(sys.base_prefix, *sys.version_info[:3])')"; \
		test "$$(cat $@ 2>/dev/null)" = "$$seen" || echo "$$seen" > $@

.venv/%/.python: .venv/python
	@echo 'Making .venv/$* (once)'
	@$(PYTHON) -m venv --clear $(@D)
	@touch $@

.venv/tools/.done: .venv/tools/.python dev/requirements.txt
	@$(@D)/$(PIP) install -r dev/requirements.txt
	@touch $@

# Other people's S3 clients: awscli wants another botocore than Rucio does.
.venv/interop/.done: .venv/interop/.python tests/interop/requirements.txt
	@echo 'Installing other S3 clients into $(@D) (once)'
	@$(@D)/$(PIP) install -r tests/interop/requirements.txt
	@touch $@

.venv/ceph/%/.done: dev/unpack.py
	@echo 'Unpacking the Ceph of Debian $* into $(@D) (once)'
	@$(PYTHON) dev/unpack.py $* $(@D) radosgw ceph-mon ceph-osd ceph-common
	@touch $@

.venv/swift/.done: .venv/swift/.python tests/servers/swift.txt
	@$(@D)/$(PIP) install -r tests/servers/swift.txt
	@touch $@

.venv/maintainer/.done: .venv/maintainer/.python dev/maintainer.txt
	@$(@D)/$(PIP) install -r dev/maintainer.txt
	@touch $@

.venv/audit/.done: .venv/audit/.python
	@echo 'Installing pip-audit into $(@D) (once)'
	@$(@D)/$(PIP) install 'pip-audit>=2.7'
	@touch $@

# setuptools is in .venv/tools: no network.
$(WHEEL): $(SOURCES) .venv/tools/.done
	@.venv/tools/$(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(@D) .

.venv/demo/.done: .venv/demo/.python demo/requirements.txt pyproject.toml | $(WHEEL)
	@echo 'Installing Rucio and the servers of the demo into $(@D) (once)'
	@$(@D)/$(PIP) install -r demo/requirements.txt $(WHEEL)
	@touch $@

.venv/demo/.wheel: .venv/demo/.done $(WHEEL)
	@$(@D)/$(PIP) install --no-deps --no-index --force-reinstall $(WHEEL)
	@touch $@

# The wheel is installed for what it requires; dev/link.py then puts links in the place of its files.
.venv/dev/.done: .venv/dev/.python pyproject.toml | $(WHEEL)
	@echo 'Installing Rucio and what the tests need into $(@D) (once)'
	@$(@D)/$(PIP) install 'rucio>=$(RUCIO),<$(shell expr $(RUCIO) + 1)' '$(WHEEL)[test]'
	@$(@D)/$(PIP) uninstall --yes rucio-s3
	@touch $@

.venv/dev/.mutants: .venv/dev/.done dev/mutation/requirements.txt
	@$(@D)/$(PIP) install -r dev/mutation/requirements.txt
	@touch $@
