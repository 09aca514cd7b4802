#!/bin/sh
# Make this checkout ready to use: tools of the host, .venv with `uvm`, build/agent, and the boot files where `uvm` looks for them.
# A step is skipped when nothing that it depends on has changed.
set -eu
umask 022
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "not root, and there is no sudo; as root: $*"
    fi
}

install() {
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" >/dev/null
}

# The system's Python comes first: one in somebody's home folder cannot be run by the other users that the tests run as.
find_python() {
    for python in ${PYTHON:-} /usr/bin/python3 python3; do
        "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    done
    return 1
}

install_tools() {
    missing=
    find_python || missing="$missing python3 python3-venv"
    command -v go >/dev/null || missing="$missing golang-go"
    command -v gcc >/dev/null || missing="$missing gcc libc6-dev"  # the tests' stand-in for Windows' host service
    command -v qemu-system-x86_64 >/dev/null || missing="$missing qemu-system-x86"
    command -v bwrap >/dev/null || missing="$missing bubblewrap"
    for tool in gpg gpg-agent gpgv sqv; do  # the tests sign a small archive, and have it verified by both
        command -v "$tool" >/dev/null || missing="$missing $tool"
    done
    # The tests make disks, by tools that lie where ordinary users do not look.
    PATH=$PATH:/usr/sbin:/sbin
    command -v mkfs.ext4 >/dev/null || missing="$missing e2fsprogs"
    command -v mkfs.erofs >/dev/null || missing="$missing erofs-utils"
    command -v mkfs.xfs >/dev/null || missing="$missing xfsprogs"
    # Images come by skopeo; the tests have a registry, a Debian of their own, and compare with what umoci unpacks.
    for tool in skopeo docker-registry umoci debootstrap; do
        command -v "$tool" >/dev/null || missing="$missing $tool"
    done
    # Tests make networks of their own, and a guest's goes through passt.
    command -v passt >/dev/null || missing="$missing passt"
    command -v ip >/dev/null || missing="$missing iproute2"
    command -v qemu-img >/dev/null || missing="$missing qemu-utils"
    if [ -z "$missing" ]; then say "host tools: there"; return; fi
    command -v apt-get >/dev/null || fail "missing, and there is no apt-get to install them with:$missing"
    say "host tools: installing$missing"
    install $missing
    find_python || fail "Python 3.11 or newer is needed; name one: PYTHON=/path/to/python3 make setup"
}

make_venv() {
    want="$("$python" -V) $(cksum <requirements.lock)"
    if [ "$(cat .venv/.locked 2>/dev/null)" = "$want" ]; then say ".venv: up to date"; return; fi
    say ".venv: installing what requirements.lock names"
    "$python" -m venv --clear .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check --only-binary=:all: --require-hashes -r requirements.lock
    echo "$want" >.venv/.locked
}

install_package() {
    want=$(cat pyproject.toml setup.py | cksum)
    if [ "$(cat .venv/.installed 2>/dev/null)" = "$want" ]; then say "uvm: up to date"; return; fi
    say "uvm: installing this checkout into .venv"
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable .
    echo "$want" >.venv/.installed
}

# As an installed package is: where Python is told to write no bytecode, it would read all of our source at each start, 0.1 s.
compile_package() {
    .venv/bin/python -m compileall -q src
}

build_agent() {
    if [ -e build/agent ] && [ -z "$(find agent \( -name '*.go' -o -name go.mod -o -name build.sh \) -newer build/agent)" ]; then say "agent: up to date"; return; fi
    say "agent: building build/agent"
    agent/build.sh build/agent
    touch build/agent
}

install_compile_tools() {
    missing=$(.venv/bin/python -c 'from utilityvm.boot.compile import missing; print(*sorted(set(missing().values())))')
    if [ -z "$missing" ]; then say "compile tools: there"; return; fi
    say "compile tools: installing $missing"
    install $missing
}

build_source_kernel() {
    out=build/boot-source
    agent=$(sha256sum <build/agent | cut -d' ' -f1)
    want=$(cat src/utilityvm/boot/*.py src/utilityvm/boot/kernel.config | cksum)
    if [ "$(cat build/boot-source.stamp 2>/dev/null)" = "$want" ] && .venv/bin/uvm boot-files show --out $out 2>/dev/null | grep -q "^agent .*$agent"; then
        say "boot files with our own kernel: up to date"
        return
    fi
    say "boot files with our own kernel: building $out"
    .venv/bin/uvm boot-files build --kernel source --out $out
    echo "$want" >build/boot-source.stamp
}

build_boot_files() {
    agent=$(sha256sum <build/agent | cut -d' ' -f1)
    want=$(cat src/utilityvm/boot/*.py | cksum)
    stamp=build/boot-files.$(id -u)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && .venv/bin/uvm boot-files show 2>/dev/null | grep -q "^agent .*$agent"; then
        say "boot files: up to date"
        return
    fi
    say "boot files: building"
    if ! .venv/bin/uvm boot-files build; then
        say "boot files: once more with new package lists"
        as_root apt-get update -qq
        .venv/bin/uvm boot-files build
    fi
    echo "$want" >"$stamp"
}

# For tests of ttrpc. Installed, the package would start a daemon on this host: it is unpacked beside the rest of what was built.
fetch_containerd() {
    out=build/containerd
    if [ -e $out ]; then say "containerd's shim: there"; return; fi
    if ! command -v apt-get >/dev/null; then say "containerd's shim: no apt-get to fetch it with; its tests are left out"; return; fi
    say "containerd's shim: fetching it, to be used from $out"
    rm -rf $out.new
    mkdir -p $out.new
    fetch="apt-get download -qq -o APT::Sandbox::User=root containerd runc"  # the user _apt may not write here
    (cd $out.new && { $fetch || { as_root apt-get update -qq && $fetch; }; })
    for package in $out.new/*.deb; do dpkg-deb -x "$package" $out.new; rm "$package"; done
    mv $out.new $out
}

case "${1:-all}" in
    agent) build_agent ;;
    all) install_tools; make_venv; install_package; compile_package; build_agent; build_boot_files; say "ready: .venv/bin/uvm" ;;
    source) install_compile_tools; build_source_kernel ;;
    containerd) fetch_containerd ;;
    *) fail "usage: setup.sh [agent|source|containerd]" ;;
esac
