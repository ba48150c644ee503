#!/usr/bin/env bash
# Makes the images that the tests with containerd run: make_images.sh FOLDER.
#
#   plain.tar     localhost/busybox:plain, an ordinary image of two layers
#   layered.tar   localhost/busybox:layered, the same as an overlaybd image

set -euo pipefail

folder=$1
tmp=$(mktemp --directory)
trap 'rm --recursive --force "$tmp"' EXIT
cd "$tmp"

umoci init --layout oci
umoci new --image oci:plain
umoci unpack --image oci:plain bundle
mkdir -p bundle/rootfs/{bin,etc,out,proc,sys,dev,tmp,root}
cp "$(command -v busybox)" bundle/rootfs/bin/busybox
for link in sh cat cp dd df echo find grep head ln ls md5sum mkdir mount mv od ps rm sed seq sha256sum \
  sleep stat sync tail test touch true umount wc; do
  ln --symbolic busybox "bundle/rootfs/bin/$link"
done
echo first >bundle/rootfs/etc/first
echo first >bundle/rootfs/etc/changed
echo first >bundle/rootfs/etc/removed
umoci repack --image oci:plain bundle
rm --recursive bundle
# The second layer changes, removes and adds.
umoci unpack --image oci:plain bundle
rm bundle/rootfs/etc/removed
echo second >bundle/rootfs/etc/changed
head --bytes 1M /dev/urandom >bundle/rootfs/etc/large
ln bundle/rootfs/etc/large bundle/rootfs/etc/linked
sha256sum <bundle/rootfs/etc/large >bundle/rootfs/etc/large.sum
umoci repack --image oci:plain bundle
umoci config --image oci:plain --config.env PATH=/bin --config.cmd /bin/sh
skopeo copy --insecure-policy oci:oci:plain "oci-archive:$tmp/plain.tar:localhost/busybox:plain"

# Its layers, from the lowest, and its config.
blob() { printf 'oci/blobs/%s' "${1/://}"; }
manifest=$(blob "$(jq --raw-output '.manifests[] | select(.annotations."org.opencontainers.image.ref.name" == "plain") | .digest' oci/index.json)")
mapfile -t layers < <(jq --raw-output '.layers[].digest' "$manifest" | while read -r digest; do blob "$digest" && echo; done)
config=$(blob "$(jq --raw-output .config.digest "$manifest")")
"$OBD_TOOL" import-tar "${layers[@]}" -o image --size 1G
"$OBD_TOOL" export-oci image -o layered.tar --name localhost/busybox:layered --config-from "$config"
mv plain.tar layered.tar "$folder"
