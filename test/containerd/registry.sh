#!/usr/bin/env bash
# An overlaybd image goes to a registry and comes back, by skopeo and by containerd, and runs.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
requires_command docker-registry
start_both '{"rwMode": "overlayfs"}'

port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >registry.yml <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $tmp/registry}}
http: {addr: "127.0.0.1:$port"}
YAML
docker-registry serve registry.yml >registry.log 2>&1 &
registry=127.0.0.1:$port
answers() { : >"/dev/tcp/127.0.0.1/$port"; }
wait_for 60 answers
# Without --preserve-digests skopeo would compress the layers anew, and nobody could read them in place.
skopeo --insecure-policy copy --quiet --preserve-digests --dest-tls-verify=false \
  "oci-archive:$images/layered.tar" "docker://$registry/busybox:layered"

# What comes back has the same layers.
skopeo inspect --raw --tls-verify=false "docker://$registry/busybox:layered" >pushed.json
skopeo inspect --raw "oci-archive:$images/layered.tar" >made.json
for manifest in pushed made; do jq '[.layers[].digest]' $manifest.json >$manifest.layers; done
expect_same made.layers pushed.layers
expect_json pushed.json '.layers | all(.annotations["containerd.io/snapshot/overlaybd/blob-digest"] | startswith("sha256:"))'

# Only the registry has it now.
ctr images remove --sync "$layered" >/dev/null
ctr images pull --plain-http --snapshotter overlaybd "$registry/busybox:layered" >pull.log 2>&1
for mode in overlayfs dir dev; do
  # shellcheck disable=SC2016  # for the container's shell
  run_container $mode "$registry/busybox:layered" '
    grep " / " /proc/mounts | tail -n 1
    [ "$(cat /etc/changed)" = second ]
    [ "$(sha256sum </etc/linked)" = "$(cat /etc/large.sum)" ]' \
    --snapshotter-label containerd.io/snapshot/overlaybd.writable=$mode
  case $mode in
    overlayfs) grep --quiet '^overlay ' out/$mode ;;
    *) grep --quiet '^/dev/.* ext4 ' out/$mode ;;
  esac || fail "$mode: $(<out/$mode)"
  ctr containers delete $mode
done
remove_everything
expect_all_gone 'an image from a registry'
