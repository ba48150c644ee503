#!/usr/bin/env bash
# A container image to an image of ours and back into an OCI layout, and through a registry.
own_mounts=yes
. "$(dirname "$0")/functions.sh"
. "$source_dir/test/e2e/oci_functions.sh"
requires_command umoci skopeo docker-registry mkfs.ext4 e2fsck curl busybox
requires_loop_devices

# --- a container image of two layers, made by umoci ---

umoci init --layout source
umoci new --image source:app
umoci unpack --image source:app bundle >/dev/null
mkdir -p bundle/rootfs/{bin,data/old,etc}
cp "$(command -v busybox)" bundle/rootfs/bin/busybox
ln -s busybox bundle/rootfs/bin/sh
echo root:x:0:0 >bundle/rootfs/etc/passwd
echo old >bundle/rootfs/data/old/f
umoci repack --image source:app bundle >/dev/null
rm -rf bundle
umoci unpack --image source:app bundle >/dev/null
rm -r bundle/rootfs/data/old
echo new >bundle/rootfs/data/new
chmod 750 bundle/rootfs/data
umoci repack --image source:app bundle >/dev/null
umoci config --image source:app --config.cmd /bin/sh --config.env A=b --config.user 0:0
rm -rf bundle
umoci unpack --image source:app bundle >/dev/null

blob() { echo "source/blobs/sha256/${1#sha256:}"; }
manifest=$(blob "$(jq -r '.manifests[0].digest' source/index.json)")
config=$(blob "$(jq -r .config.digest "$manifest")")
layers=()
while read -r digest; do layers+=("$(blob "$digest")"); done < <(jq -r '.layers[].digest' "$manifest")
((${#layers[@]} == 2)) || fail "umoci made ${#layers[@]} layers"

obd import-tar "${layers[@]}" -o image --size 1G --json >import.json
expect_json import.json '.layers | length == 2'
[[ "$(jq -c '[.layers[].diff_id]' import.json)" == "$(jq -c .rootfs.diff_ids "$config")" ]] ||
  fail 'the diff ids are not those of the container image'
mount_image image mounted
expect_same_tree bundle/rootfs mounted

# --- the layout ---

SOURCE_DATE_EPOCH=1700000000 obd export-oci image -o layout --name localhost:5000/app:1 \
  --config-from "$config" --compress lz4 >export.out
grep -Eq '^created layout: 2 layers, manifest sha256:[0-9a-f]{64}$' export.out || fail "$(<export.out)"
for path in layout/blobs/sha256/*; do
  [[ "$(sha256sum <"$path" | cut -d' ' -f1)" == "${path##*/}" ]] || fail "$path is not its digest"
done
of_layout() { echo "layout/blobs/sha256/${1#sha256:}"; }
out_manifest=$(of_layout "$(jq -r '.manifests[0].digest' layout/index.json)")
expect_json layout/index.json \
  '.manifests[0].annotations["org.opencontainers.image.ref.name"] == "1"' \
  '.manifests[0].annotations["io.containerd.image.name"] == "localhost:5000/app:1"'
expect_json "$out_manifest" '.layers | length == 2' \
  'all(.layers[]; .annotations["containerd.io/snapshot/overlaybd/blob-digest"] == .digest)' \
  'all(.layers[]; .annotations["containerd.io/snapshot/overlaybd/blob-size"] == (.size | tostring))' \
  'all(.layers[]; .annotations["containerd.io/snapshot/overlaybd/blob-fs-type"] == "ext4")' \
  'all(.layers[]; .mediaType == "application/vnd.oci.image.layer.v1.tar")'
out_config=$(of_layout "$(jq -r .config.digest "$out_manifest")")
expect_json "$out_config" '.config.Cmd == ["/bin/sh"]' '.config.Env | index("A=b") != null' \
  '.rootfs.type == "layers"' '.history | length >= 2'
[[ "$(jq -c .rootfs.diff_ids "$out_config")" == "$(jq -c '[.layers[].digest]' "$out_manifest")" ]] ||
  fail 'the diff ids are not the digests of the layers'
out_layers=()
while read -r digest; do out_layers+=("$(of_layout "$digest")"); done < <(jq -r '.layers[].digest' "$out_manifest")
for layer in "${out_layers[@]}"; do
  [[ "$(tar -tf "$layer")" == overlaybd.commit ]] || fail "$layer: $(tar -tf "$layer")"
  obd check "$layer"
done
obd export image -o image.raw
obd create again --lower "${out_layers[@]}"
obd export again -o again.raw
expect_same image.raw again.raw

# The same again, to the byte; and as a tar file.
for copy in layout2 layout.tar; do
  SOURCE_DATE_EPOCH=1700000000 obd export-oci image -o $copy --name localhost:5000/app:1 \
    --config-from "$config" --compress lz4 >/dev/null
done
diff -r layout layout2
mkdir unpacked
tar -xf layout.tar -C unpacked
diff -r layout unpacked
skopeo inspect --raw oci:layout:1 >/dev/null
skopeo inspect oci-archive:layout.tar:1 >/dev/null
umoci stat --image layout:1 >/dev/null

# --- into containerd ---

if command -v containerd ctr >/dev/null; then
  cat >containerd.toml <<EOS
version = 2
root = "$tmp/containerd-root"
state = "$tmp/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$tmp/containerd.sock"
[ttrpc]
  address = "$tmp/containerd.sock.ttrpc"
EOS
  containerd --config containerd.toml >containerd.out 2>&1 &
  containerd=$!
  cleanup_fn stop_pid "$containerd"
  ctr() { command ctr --address "$tmp/containerd.sock" "$@"; }
  wait_until "$containerd" ctr version || fail "containerd did not start: $(tail -n 3 containerd.out)"
  ctr images import --no-unpack layout.tar >/dev/null
  ctr images list --quiet >names
  [[ "$(<names)" == localhost:5000/app:1 ]] || fail "containerd has the images $(<names)"
  for layer in "${out_layers[@]}"; do
    ctr content get "sha256:${layer##*/}" | cmp - "$layer"
  done
  kill "$containerd"
  wait "$containerd" || true
fi

# --- through a registry ---

port=$((20000 + RANDOM % 20000))
cat >registry.yml <<EOS
version: 0.1
storage: {filesystem: {rootdirectory: $tmp/registry}}
http: {addr: "127.0.0.1:$port"}
EOS
docker-registry serve registry.yml >registry.out 2>&1 &
registry=$!
cleanup_fn stop_pid "$registry"
wait_until "$registry" curl -fs "http://127.0.0.1:$port/v2/" || fail 'the registry did not start'
# Without --preserve-digests skopeo would compress the layers with gzip.
skopeo copy --insecure-policy --preserve-digests --dest-tls-verify=false oci:layout:1 "docker://127.0.0.1:$port/app:1" \
  >skopeo.log 2>&1
skopeo copy --insecure-policy --preserve-digests --src-tls-verify=false "docker://127.0.0.1:$port/app:1" oci:pulled:1 \
  >>skopeo.log 2>&1
pulled=()
for layer in "${out_layers[@]}"; do
  expect_same "$layer" "pulled/blobs/sha256/${layer##*/}"
  pulled+=("pulled/blobs/sha256/${layer##*/}")
done
skopeo inspect --raw --tls-verify=false "docker://127.0.0.1:$port/app:1" >pulled.json
expect_json pulled.json \
  'all(.layers[]; .annotations["containerd.io/snapshot/overlaybd/blob-digest"] == .digest)'
obd create back --lower "${pulled[@]}"
obd export back -o back.raw
expect_same image.raw back.raw

# --- uppers, and refusals ---

obd create top --from image
obd export-oci top -o empty-upper --json >export.json
expect_json export.json '.layers == 2' '.file_system == "ext4"' '.name == null'
serve top
qemu_io "$uri" 'write -P 7 900M 64k'
stop_nbdkit
expect_fail 1 'obd seal' obd export-oci top -o changed
obd export-oci top -o changed --commit --json >export.json
expect_json export.json '.layers == 3'
obd export-oci image/layer-0.lsmt -o single --json >export.json
expect_json export.json '.layers == 1'
expect_fail 1 'exists already' obd export-oci image -o layout
expect_fail 1 'no OCI image config' obd export-oci image -o none --config-from /etc/passwd
expect_fail 1 'is a manifest' obd export-oci image -o none --config-from "$manifest"
obd create nothing --size 1G
expect_fail 1 'no layer' obd export-oci nothing -o none
expect_fail 1 'No such file' obd export-oci image -o missing/none
mkdir tiny
mount -t tmpfs -o size=200K tmpfs tiny
cleanup_fn umount tiny
expect_fail 1 'space' obd export-oci image -o tiny/layout
expect_fail 1 'space' obd export-oci image -o tiny/layout.tar
[[ -z "$(ls -A tiny)" ]] || fail "a full host: $(ls -A tiny)"
