#!/usr/bin/env bash
# Flushed writes survive a power cut of the real thing: server, kernel, file system and page cache.
# nbdkit, the plugin and a writer run inside a guest, the image on the guest's own disk; the guest
# is killed at a random moment and booted again to judge what is left: power_cut.sh append|sparse
# Environment: OBD_POWER_CUTS (2), how often the power is cut, each time on what the last cut left;
# OBD_SEED repeats the requests and the delays.
cuts=${OBD_POWER_CUTS:-2}
# shellcheck disable=SC2034
time_limit=$((200 + 60 * cuts))
. "$(dirname "$0")/guest.sh"
type=$1
requires_command mkfs.ext4
seed=${OBD_SEED:-$((RANDOM * 1000 + 1))}
RANDOM=$seed
echo "seed $seed (OBD_SEED=$seed repeats the requests and the delays)"

make_initramfs writer "${image_programs[@]}" "$programs/power_cut_writer" <<'GUEST'
# The kernel writes dirty pages out all the time, so that a cut finds some of them on the disk, in
# whatever order it liked.
echo 10 >/proc/sys/vm/dirty_expire_centisecs
echo 5 >/proc/sys/vm/dirty_writeback_centisecs
mount -t ext4 -o errors=panic,commit=1 /dev/vda /mnt
if [ "$round" = 1 ]; then obd create /mnt/disk --type "$type" --lower /mnt/base.lsmt; fi
obd check /mnt/disk
nbdkit --unix /run/disk.sock "$plugin" /mnt/disk/config.v1.json
uri='nbd+unix:///?socket=/run/disk.sock'
if [ "$round" -gt 1 ]; then
  power_cut_writer verify "$uri" /mnt/state $((seed + round - 1)) "$flushed"
fi
echo "VERIFIED, round $round"
[ "$round" -gt "$cuts" ] || power_cut_writer run "$uri" $((seed + round))
GUEST

# Every cell of the base is known, and so is every cell of the disk.
mkdir files
"$programs/kill_writer" fill base.raw known $((32 * 1024 * 1024))
obd import base.raw -o files/base.lsmt
mv known/state files/state
truncate --size 1G host.raw
mkfs.ext4 -q -F -d files host.raw

flushed=0
for ((round = 1; round <= cuts + 1; ++round)); do
  guest=round-$round
  start_guest "$guest" --initramfs writer --raw host.raw \
    --append "plugin=$guest_plugin type=$type cuts=$cuts round=$round seed=$seed flushed=$flushed"
  wait_console "$guest" '^VERIFIED|^RESULT'
  ((round <= cuts)) || break
  # Now and then while the image opens, or before the first flush of its session.
  ((RANDOM % 4 == 0)) || wait_console "$guest" '^FLUSHED|^RESULT'
  sleep "$((RANDOM % 3)).$((RANDOM % 10))"
  # A writer that ended, or did not begin, has said why.
  if grep '^RESULT' "$guest.console.log"; then fail "round $round failed"; fi
  cut_power "$guest"
  # A line that the cut tore does not count.
  flushed=$(sed -n $'s/^FLUSHED \\([0-9]*\\)\r$/\\1/p' "$guest.console.log" | tail -n 1)
  flushed=${flushed:-0}
  echo "round $round: power cut after $flushed flushed requests"
done
end_guest "$guest"
