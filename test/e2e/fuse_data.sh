#!/usr/bin/env bash
# What is read through obd-fuse and a loop device is what was written, trimmed and zeroed:
# fuse_data.sh append|sparse
own_mounts=yes
. "$(dirname "$0")/functions.sh"
. "$source_dir/test/e2e/fuse_functions.sh"
requires_command losetup python3
type=$1
seed=${OBD_SEED:-$((RANDOM * 100 + 1))}
echo "seed $seed (OBD_SEED=$seed repeats this run)"

obd create disk --type "$type" --size 40M
serve disk
for connections in 1 3; do
  start_fuse --connections $connections
  [[ $(stat --format=%s file) == $((40 * 1024 * 1024)) ]]
  # The server's own, which the kernel is told.
  [[ $(stat --format=%o file) == 4096 ]]
  attach_loop
  python3 "$source_dir/test/e2e/fuse_model.py" file "$loop" $((seed + connections)) 800
  # Larger than any one request.
  fallocate --punch-hole --offset 0 --length 40M file
  cmp --bytes=$((40 * 1024 * 1024)) "$loop" /dev/zero
  losetup --detach "$loop"
  stop_fuse
done

# ZERO_RANGE asks for zeros that keep their space, PUNCH_HOLE gives it back.
start_fuse
random_raw some.raw 8M
dd if=some.raw of=file bs=1M conv=notrunc,fsync status=none
fallocate --zero-range --offset 0 --length 4M file
cmp --bytes=$((4 * 1024 * 1024)) file /dev/zero
obd info --force-share --json disk >kept.json
fallocate --punch-hole --offset 0 --length 4M file
cmp --bytes=$((4 * 1024 * 1024)) file /dev/zero
# The space goes back in the background, once a flush has made the trim stable.
is_given_back() {
  obd info --force-share --json disk >punched.json
  jq --exit-status '.layers[-1].allocated_bytes < 5 * 1048576' punched.json >/dev/null
}
[[ $type == append ]] || wait_until "$nbdkit_pid" is_given_back ||
  fail "the space was not given back: $(cat punched.json)"
cmp --bytes=$((4 * 1024 * 1024)) --ignore-initial=$((4 * 1024 * 1024)) file some.raw
stop_fuse
[[ $type == append ]] || expect_json kept.json '.layers[-1].allocated_bytes >= 8 * 1048576'
stop_nbdkit
obd check disk
