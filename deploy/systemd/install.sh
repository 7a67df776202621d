#!/bin/sh
# Install the collector from this folder, without the network: a virtual environment, a user, a unit for systemd.
# Run it again with a newer folder to upgrade. `--files-only --root DIR` puts the files under DIR and changes nothing else.
set -eu
umask 022  # the unit's user must be able to read what root installs
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root='' files_only=''
while [ $# -gt 0 ]; do
  case $1 in
    --root) root=$2; shift 2 ;;
    --files-only) files_only=yes; shift ;;
    *) echo "error: unknown argument $1: there are --root DIR and --files-only" >&2; exit 2 ;;
  esac
done
if [ -z "$files_only" ] && [ "$(id -u)" -ne 0 ]; then
  echo "error: this makes a user and installs a unit, so it must run as root: use sudo" >&2
  exit 1
fi

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $("$python" --version) is too old: Python 3.11 or newer is needed; PYTHON= names another" >&2
  exit 1
}
# A new environment beside the old one, then exchanged: an upgrade that fails leaves what runs.
prefix=$root/opt/infrasage
mkdir -p "$root/opt"
rm -rf "$prefix.new"
"$python" -m venv "$prefix.new"
"$prefix.new/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps "$here"/wheels/*.whl || {
  echo "error: the wheels of this folder cannot be installed: they are for the Python and the processor that made them" \
    "($(cd "$here/wheels" && echo infrasage_collector-*.whl)), and this is $("$python" --version) on $(uname -m);" \
    "PYTHON= names another. Nothing was replaced" >&2
  rm -rf "$prefix.new"
  exit 1
}
# The scripts name the environment that they were installed into: in the second line, where its path is long or has a space.
for script in "$prefix.new"/bin/*; do
  if [ ! -L "$script" ] && head -c 2 "$script" | grep -q '#!'; then
    sed -i "1,2s|$prefix.new/|$prefix/|" "$script"
  fi
done
if [ -z "$files_only" ]; then
  getent passwd infrasage > /dev/null || useradd --system --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin infrasage
  runuser -u infrasage -- "$prefix.new/bin/python" -c '' || {
    echo "error: the user infrasage cannot run $(readlink -f "$prefix.new/bin/python"), so the unit could not start;" \
      "PYTHON= names another, for example PYTHON=/usr/bin/python3. Nothing was replaced" >&2
    rm -rf "$prefix.new"
    exit 1
  }
fi
rm -rf "$prefix.old"
if [ -e "$prefix" ]; then mv "$prefix" "$prefix.old"; fi
mv "$prefix.new" "$prefix"

install -d -m 0755 "$root/etc/infrasage" "$root/etc/systemd/system"
install -m 0644 "$here/infrasage-collector@.service" "$root/etc/systemd/system/"
[ -e "$root/etc/infrasage/collector.toml" ] || install -m 0644 "$here/collector.toml" "$root/etc/infrasage/"
"$prefix/bin/infrasage-collector" --version
if [ -n "$files_only" ]; then exit 0; fi

if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
echo "start it now and at each boot: systemctl enable --now infrasage-collector@serve"
echo "after an upgrade: systemctl restart 'infrasage-collector@*'; then $prefix.old may be removed"
