#!/bin/sh
# Run tests as an ordinary user: nobody, without groups, without subordinate ids, in a copy of the checkout that belongs to that user (the
# checkout itself may lie where others cannot look). Boot files are the ones of `make setup`, or of a folder of the checkout.
# usage, as root: [UVM_BOOT_FILES=build/boot-source] test-as-user.sh [PYTEST ARGUMENT...]
set -eu
cd "$(dirname "$0")/.."
checkout=$PWD
[ "$(id -u)" = 0 ] || { echo "test-as-user: must be started by root" >&2; exit 1; }

uid=65534
place=$(mktemp -d /var/tmp/uvm-user.XXXXXX)
trap 'rm -rf "$place"' EXIT
trap 'exit 130' INT TERM
copy=$place/checkout
mkdir -p "$copy" "$place/home/.local/state/utilityvm" "$place/home/.cache" "$place/run"
tar --exclude=./.git --exclude=__pycache__ -cf - . | tar -xf - -C "$copy"
# scripts and the editable install name the checkout by its path
grep -rlIF "$checkout" "$copy/.venv/bin" "$copy"/.venv/lib/python*/site-packages/*utilityvm* | xargs -r sed -i "s|$checkout|$copy|g"
ln -s /var/lib/utilityvm/boot "$place/home/.local/state/utilityvm/boot"
# what was downloaded and compiled before is not downloaded and compiled again
mkdir "$place/home/.cache/utilityvm"
for kept in packages kernels; do
    if [ -d /var/cache/utilityvm/$kept ]; then cp -R /var/cache/utilityvm/$kept "$place/home/.cache/utilityvm/$kept"; fi
done
chmod 755 "$place"
chmod 700 "$place/run"
chown -R "$uid:$uid" "$place"
boot_files=${UVM_BOOT_FILES:+UVM_BOOT_FILES=$copy/$UVM_BOOT_FILES}

cd "$copy"
echo "test-as-user: as uid $uid: ${UVM_BOOT_FILES:+with $UVM_BOOT_FILES }pytest $*"
setpriv --reuid="$uid" --regid="$uid" --clear-groups env -i PATH="$copy/.venv/bin:/usr/local/bin:/usr/bin:/bin" LANG=C.UTF-8 \
    HOME="$place/home" XDG_RUNTIME_DIR="$place/run" TMPDIR="$place/run" ${boot_files:+"$boot_files"} .venv/bin/python -m pytest "$@"
