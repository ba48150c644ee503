#!/usr/bin/env bash
# Dead space comes back while the server runs: space_reclaim.sh append|sparse
# shellcheck disable=SC2154
own_mounts=yes
. "$(dirname "$0")/functions.sh"
requires_loop_devices
type=$1
mib=$((1 << 20))

# A file system of its own, so that what it has set aside is this image's doing alone.
truncate -s 1G host.img
mkfs.ext4 -q -m 0 host.img
mkdir host
mount -o loop host.img host
cleanup_fn umount host

held() { obd info --json --force-share host/disk | jq '.layers[-1].allocated_bytes'; }
# serve_with PARAMETER...
serve_with() { start_nbdkit server "$OBD_PLUGIN" host/disk/config.v1.json "$@"; }

# Waits until the host holds at most LIMIT bytes for the data.
comes_down_to() {
  local i
  for ((i = 0; i < 100; ++i)); do
    (($(held) > $1)) || return 0
    sleep 0.2
  done
  fail "$type: the host holds $(held) bytes, more than $1"
}

# --- trims without a flush, as fstrim sends them ---
obd create host/disk --type "$type" --size 256M
serve host/disk
qemu_io "$uri" 'write -P 65 0 128M' 'write -P 66 128M 64M' flush 'discard 0 96M' 'discard 130M 40M' \
  'read -P 0 0 96M' 'read -P 65 96M 32M' 'read -P 0 130M 40M' 'read -P 66 170M 22M'
comes_down_to $(((192 - 96 - 40) * mib * 105 / 100))
qemu_io "$uri" 'read -P 0 0 96M' 'read -P 65 96M 32M' 'read -P 0 130M 40M' 'read -P 66 170M 22M'
stop_nbdkit
obd check host/disk

# --- overwriting again and again ---
if [[ $type == append ]]; then
  serve host/disk
  for round in 1 2 3 4 5 6; do
    qemu_io "$uri" "write -P $((round + 32)) 0 192M" 'flush'
    # 1.3 times the live data, and 64 MiB.
    (($(held) <= 192 * mib * 13 / 10 + 64 * mib)) || fail "round $round: the host holds $(held) bytes"
  done
  "$programs/obd_load" --mix 0,100,0 --block 4096 --seconds 3 --flush-every 500 "$uri" >load.log
  (($(held) <= 256 * mib * 13 / 10 + 64 * mib)) || fail "the host holds $(held) bytes"
  comes_down_to $((256 * mib * 110 / 100))
  # The log was replaced meanwhile: it keeps to some three records for each live one.
  records=$(obd info --json --force-share host/disk | jq '.layers[-1].log_records')
  ((records <= 3 * 65536)) || fail "the log has $records records"
  kill_nbdkit
  obd check host/disk
  serve_with gc=off
  before=$(held)
  qemu_io "$uri" 'write -P 1 0 64M' flush
  (($(held) >= before + 60 * mib)) || fail 'gc=off reuses space'
  qemu_io "$uri" 'read -P 1 0 64M'
  stop_nbdkit
fi
rm -r host/disk

# --- a budget ---
obd create host/disk --type "$type" --size 256M
serve_with max-upper-size=64M
qemu_io "$uri" 'write -P 1 0 40M' flush
if qemu-io -f raw -c 'write -P 2 40M 40M' "$uri" >write.out 2>&1; then fail 'no budget was kept'; fi
grep -q 'No space left on device' write.out || fail 'the budget gave another error'
(($(held) <= 64 * mib)) || fail "the host holds $(held) bytes"
qemu_io "$uri" 'read -P 1 0 40M'
# What is given up makes room, at once.
qemu_io "$uri" 'discard 0 32M' 'write -P 3 100M 30M' flush 'write -P 4 100M 30M' flush \
  'read -P 4 100M 30M' 'read -P 0 0 32M' 'read -P 1 32M 8M'
(($(held) <= 64 * mib)) || fail "the host holds $(held) bytes"
stop_nbdkit
obd check host/disk

# --- zeros that keep their space ---
rm -r host/disk
obd create host/disk --type "$type" --size 64M
serve host/disk
qemu_io "$uri" 'write -z 0 16M' flush
sleep 2
(($(held) >= 16 * mib)) || fail 'zeros without permission to trim hold no space'
qemu_io "$uri" 'write -z -u 0 16M' flush 'read -P 0 0 16M'
comes_down_to $mib
stop_nbdkit
