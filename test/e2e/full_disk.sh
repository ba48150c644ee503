#!/usr/bin/env bash
# A host file system that runs full: full_disk.sh append|sparse tmpfs|ext4
own_mounts=yes
. "$(dirname "$0")/functions.sh"
type=$1

mkdir small
if [[ $2 == tmpfs ]]; then
  mount -t tmpfs -o size=24M none small
else
  requires_loop_devices
  truncate -s 32M small.img
  mkfs.ext4 -q -m 0 small.img
  mount -o loop small.img small
fi
cleanup_fn umount small

head -c 64M /dev/zero | tr '\0' '\021' >lower.raw
obd import lower.raw -o lower.lsmt
obd create small/disk --type "$type" --lower lower.lsmt
head -c 8M /dev/zero >small/filler

# Writes 256 KiB pieces until long after the disk is full. qemu-io says `wrote` for each success.
pieces=160
piece=$((256 * 1024))
serve small/disk
arguments=()
for ((i = 0; i < pieces; ++i)); do arguments+=(-c "write -P $((i % 200 + 32)) $((i * piece)) $piece"); done
qemu-io -f raw "${arguments[@]}" "$uri" >write.out 2>&1 || true
grep -q 'No space left on device' write.out || fail 'no write reported a full disk'
if grep -i 'failed' write.out | grep -v 'No space left on device'; then fail 'another error'; fi
declare -A written=()
while read -r offset; do written[$((offset / piece))]=1; done \
  < <(sed -n 's/^wrote .* at offset \([0-9]*\)$/\1/p' write.out)
echo "${#written[@]} of $pieces writes went before the disk was full"
((${#written[@]} > 20 && ${#written[@]} < pieces)) || fail 'not a full disk at all'

# What was written is there; what was not, can be read: the old bytes, or some of the new ones.
reads=()
for ((i = 0; i < pieces; ++i)); do
  if [[ -n ${written[$i]:-} ]]; then
    reads+=("read -P $((i % 200 + 32)) $((i * piece)) $piece")
  else
    reads+=("read $((i * piece)) $piece")
  fi
done
reads+=("read -P 17 $((pieces * piece)) 1M")
qemu_io "$uri" "${reads[@]}"
# The log, which may lie in memory, says the first of the failures and counts the others.
(($(grep -c 'No space left on device' server.log) <= 40)) ||
  fail "the log says it $(grep -c 'No space left on device' server.log) times"
kill_nbdkit
obd check small/disk

# Opened on the full disk: readable, refusing writes, as before.
serve small/disk
qemu_io "$uri" "${reads[@]}"
if qemu-io -f raw -c "write -P 9 60M 2M" "$uri" >write.out 2>&1; then fail 'there was space'; fi
grep -q 'No space left on device' write.out
# Once there is space, the same server goes on.
rm small/filler
rewrites=()
reads=()
for ((i = 0; i < pieces; ++i)); do
  if [[ -z ${written[$i]:-} ]] && ((${#rewrites[@]} < 20)); then
    rewrites+=("write -P 7 $((i * piece)) $piece")
    written[$i]=7
  fi
  case ${written[$i]:-} in
    1) reads+=("read -P $((i % 200 + 32)) $((i * piece)) $piece") ;;
    7) reads+=("read -P 7 $((i * piece)) $piece") ;;
  esac
done
qemu_io "$uri" "${rewrites[@]}" flush "${reads[@]}"
stop_nbdkit

obd check small/disk
serve small/disk -r
qemu_io_read "$uri" "${reads[@]}"
stop_nbdkit
