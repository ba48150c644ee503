#!/usr/bin/env bash
# Gets Debian's cloud kernel for the guests of the tests, once: downloaded and unpacked into a cache
# folder, never installed. Prints the folder that holds vmlinuz and modules/. When the kernel cannot
# be had, one sentence on standard error says why, and the status is 1.
#
# The folder appears whole or not at all, and may be asked for by many tests at once. Removing the
# cache ($OBD_GUEST_CACHE, by default build/guest-kernel) gets the newest kernel the next time.

set -euo pipefail
shopt -s inherit_errexit

give_up() {
  printf 'no kernel for the guest: %s\n' "$1" >&2
  exit 1
}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${OBD_GUEST_CACHE:-$source_dir/build/guest-kernel}
mkdir -p "$cache" || give_up "the cache $cache cannot be made"
cache=$(cd "$cache" && pwd)
kernel=$cache/kernel
metapackage=linux-image-cloud-amd64

if [[ ! -d $kernel ]]; then
  exec {lock}>"$cache/lock" || give_up "the cache $cache is not writable"
  flock "$lock"
fi
# Whoever held the lock may have been here first.
if [[ -d $kernel ]]; then
  printf '%s\n' "$kernel"
  exit
fi

for command in apt-cache apt-get dpkg-deb; do
  command -v "$command" >/dev/null || give_up "there is no program $command, so this is no Debian"
done

rm --recursive --force "$cache"/new.* # of somebody who was killed
new=$(mktemp --directory "$cache/new.XXXXXXXX")
trap 'rm --recursive --force "$new"' EXIT
trap 'exit 143' HUP INT TERM
cd "$new"

# The metapackage depends on the kernel of the day.
package=$(apt-cache depends "$metapackage" 2>/dev/null |
  awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }') || true
[[ -n $package ]] || give_up "apt knows no package $metapackage (apt-get update)"
timeout 120 apt-get --quiet --quiet download "$package" >download.log 2>&1 ||
  give_up "$package cannot be downloaded: $(grep '^E:' download.log | head -n 1)"

mkdir unpacked kernel
dpkg-deb --fsys-tarfile "$package"_*.deb | tar --extract --directory=unpacked --wildcards \
  './boot/vmlinuz*' './lib/modules/*/kernel/drivers/block' './lib/modules/*/kernel/drivers/virtio' \
  './lib/modules/*/kernel/fs' './lib/modules/*/kernel/lib' './lib/modules/*/kernel/crypto' ||
  give_up "$package does not hold what is expected"
mv unpacked/boot/vmlinuz* kernel/vmlinuz
mv unpacked/lib/modules/* kernel/modules
# A host that dies soon must not leave a kernel of zeros behind for good.
sync --file-system kernel
mv --no-target-directory kernel "$kernel"
printf '%s\n' "$kernel"
