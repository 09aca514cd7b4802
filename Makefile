# make setup   everything a new machine needs          make run    run a container in a virtual machine of its own
# make test    every test                              make check  what to run before a commit, about a minute
PYTEST = .venv/bin/python -m pytest
# Tests of code without I/O, every branch of which is run: they are measured as they run.
PURE = $(wildcard tests/golden tests/parity tests/unit/options tests/unit/plan tests/unit/schema tests/unit/wire)
# Tests that wait for processes, sockets and disks half of their time.
WAITING = $(wildcard tests/hcs $(addprefix tests/unit/,compute guest images network))
GO = cd agent && go
export CGO_ENABLED = 0
FUZZ_SECONDS = 60
FUZZ_INPUTS = 1000000
FUZZ_SEED =
# The user is a matter of the host and the kernel one of the guest: every test runs as root and as an ordinary user, and on both kernels,
# but not in all four ways (CONTRIBUTING.md).
AS_USER = tests/vm/test_readme.py tests/vm/test_debugging.py tests/vm/test_screen.py
VM_LANES = $(if $(filter 0,$(shell id -u)),vm-as-root vm-as-user,vm-as-myself)

.PHONY: setup setup-source setup-containerd run test check quick waiting lint agent go-test pure hcs images unit golden parity fault vm vm-source vm-as-root vm-as-user vm-as-myself package kernel-twice rest bench soak fuzz lock clean

setup:
	@tools/setup.sh

# The kernel that we compile ourselves, and boot files with it in build/boot-source: minutes the first time.
setup-source: setup
	@tools/setup.sh source

run: setup
	.venv/bin/uvm run busybox uname -a

# The shim that the tests of ttrpc speak with, in build/containerd.
setup-containerd: setup
	@tools/setup.sh containerd

# Two at a time: an emulated VM keeps one processor busy. What tells of a mistake soonest is first, then what takes longest.
test: setup setup-source setup-containerd
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint go-test pure $(VM_LANES) rest

# All but the virtual machines of tests/vm, and what is measured.
rest:
	$(PYTEST) tests --ignore=tests/vm $(PURE:%=--ignore=%)

# Three at a time on two processors, as one of them waits.
check:
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target lint waiting quick pure go-test

quick:
	$(PYTEST) tests/meta tests/unit $(PURE:%=--ignore=%) $(WAITING:%=--ignore=%)

waiting:
	$(PYTEST) $(WAITING)

# Fails below 100 % of the branches of the packages that pyproject.toml names.
pure:
	.venv/bin/coverage run -m pytest $(PURE)
	@.venv/bin/coverage report

lint:
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	@unformatted=$$(gofmt -l agent); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...

agent:
	@tools/setup.sh agent

go-test:
	$(GO) test ./...

parity:
	.venv/bin/python tests/parity/run.py $(if $(VECTORS),--vectors "$(VECTORS)")

# Long campaigns; their files have a name of their own, so that no other lane collects them. Memory is counted: pytest shall keep no log.
soak:
	$(PYTEST) -s -p no:logging -o python_files='soak_*.py' tests/soak

bench:
	.venv/bin/python bench/run.py

unit golden fault vm hcs package images:
	$(PYTEST) tests/$@

# The same tests on our own kernel, but for those that build boot files of both kinds anyway.
vm-source: setup-source
	UVM_BOOT_FILES=$(CURDIR)/build/boot-source $(PYTEST) tests/vm --ignore tests/vm/test_boot_files.py

# What root runs of `make test` beside the ordinary user; in turn, because both look at what is left in root's own folders.
vm-as-root: setup-source
	$(PYTEST) tests/vm -m "not once"
	UVM_BOOT_FILES=$(CURDIR)/build/boot-source $(PYTEST) tests/vm -m root

# What an ordinary user runs of it; in turn too.
vm-as-myself: setup-source
	$(PYTEST) tests/vm
	UVM_BOOT_FILES=$(CURDIR)/build/boot-source $(PYTEST) tests/vm -m "not once" --ignore tests/vm/test_boot_files.py

# the same source compiled in two places gives the same kernel; twice the minutes
kernel-twice: setup-source
	.venv/bin/python tools/kernel_twice.py

vm-as-user: setup-source
	@UVM_BOOT_FILES=build/boot-source tools/test-as-user.sh tests/vm
	@tools/test-as-user.sh $(AS_USER)

# Only names, versions and hashes go into the lock file, whatever index this machine uses.
lock:
	python3 -m venv --clear build/lock
	build/lock/bin/pip install -q pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile -q --upgrade --extra dev --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links -o requirements.lock pyproject.toml

# Everything that reads what the other side has written: a million inputs on the host, then the agent's fuzzers in turn.
fuzz:
	.venv/bin/python -m tests.fuzz.run $(FUZZ_INPUTS) $(FUZZ_SEED)
	cd agent && UVM_VECTORS=$(CURDIR)/build/fuzz go test -count=1 -run AreReadHoweverTheyAreCut ./wire
	cd agent && for package in $$(go list ./...); do for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_SECONDS)s -fuzzminimizetime 1x $$package || exit 1; done; done

clean:
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
