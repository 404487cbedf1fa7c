#!/usr/bin/env bash
# Fetches Bochs 3.0 and unpacks it into a directory; nothing is installed, no root is needed.
#
#   bash examples/kernel/bochs3.sh [DIR]      DIR: bochs3 in the target directory, if not given
#
# Prints the command that starts it. Does nothing else where DIR has it already.
#
# Why: Debian 12 ships 2.7, which saves the first extended component over the XSAVE header when the format is
# compacted. Debian 13 has 3.0, in the archive that this machine has among its apt sources.
set -euo pipefail

release=trixie
packages=(bochs bochs-term bochsbios vgabios)

fail() {
    echo "bochs3: $*" >&2
    exit 1
}

root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(realpath -m "${1:-${CARGO_TARGET_DIR:-$root/target}/bochs3}")
start=$dir/bochs
if [ -x "$start" ]; then
    echo "$start"
    exit
fi

for tool in apt-get dpkg dpkg-deb; do
    command -v "$tool" >/dev/null || fail "no $tool: install Bochs 3.0 by other means and set FPU_BOCHS"
done
[ "$(dpkg --print-architecture)" = amd64 ] || fail "only for amd64"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keys" ] || fail "no $keys: install the package debian-archive-keyring"

# Where this machine gets Debian from: lines of either format, without comments.
archive=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
    sed 's/#.*//' | grep -oE '(https?|file)://[^] ]+/debian/?([[:space:]]|$)' | head -n 1 | tr -d '[:space:]') || true
[ -n "$archive" ] || fail "no Debian archive among this machine's apt sources"

# An apt of its own: its lists, its cache, no installed package.
apt=$dir/apt
trap 'rm -rf "$apt"' EXIT
rm -rf "$dir/root" "$apt"
mkdir -p "$apt"/{preferences.d,lists/partial,cache/archives/partial} "$dir/root"
echo "deb [signed-by=$keys] $archive $release main" >"$apt/sources.list"
own_apt() {
    apt-get -qq \
        -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$apt/preferences.d" \
        -o Dir::State::lists="$apt/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache" \
        -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o Acquire::Languages=none \
        -o APT::Sandbox::User=root "$@" >&2 </dev/null
}
own_apt update
own_apt -y --no-install-recommends --download-only install "${packages[@]}" ||
    fail "$archive did not give ${packages[*]} of $release"
for package in "$apt"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$dir/root"
done

# The program, its libraries, its ROM images; the rest is not needed.
find "$dir/root" -mindepth 1 -maxdepth 1 ! -name usr -exec rm -rf {} +
find "$dir/root/usr" -mindepth 1 -maxdepth 1 ! -name bin ! -name lib ! -name share -exec rm -rf {} +
find "$dir/root/usr/bin" -mindepth 1 ! -name bochs-bin -delete
find "$dir/root/usr/share" -mindepth 1 -maxdepth 1 ! -name bochs ! -name vgabios -exec rm -rf {} +
find "$dir/root/usr/lib" -mindepth 1 -maxdepth 1 ! -name x86_64-linux-gnu -exec rm -rf {} +

# With its own loader and C library, which may be newer than this machine's. Its existence says that all
# is there, so it comes last.
cat >"$start.new" <<'START'
#!/bin/sh
usr=$(dirname "$(realpath "$0")")/root/usr
lib=$usr/lib/x86_64-linux-gnu
export LTDL_LIBRARY_PATH="$lib/bochs/plugins" BXSHARE="$usr/share/bochs"
exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$usr/bin/bochs-bin" "$@"
START
chmod +x "$start.new"
"$start.new" --help >/dev/null 2>&1 || fail "what was fetched does not start"
mv "$start.new" "$start"
echo "$start"
