#!/usr/bin/env bash
# Every kind of request, in whole blocks and in parts of blocks, over lower data and over nothing,
# by qemu-io; then the same bytes after each way of reopening: qemu_io.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

head -c 16M /dev/zero | tr '\0' '\021' >lower.raw
obd import lower.raw -o lower.lsmt
# The part of the disk past 16 MiB has nothing below.
obd create disk --type "$type" --lower lower.lsmt --size 32M

writes=(
  'write -P 0xa1 0 64k'
  'write -P 0xa2 4608 512'
  'write -P 0xa3 66048 9728'
  'write -z 128k 64k'
  'write -z 197120 1024'
  'write -zu 256k 64k'
  'write -zu 328192 10752'
  'discard 512k 64k'
  'discard 590336 10240'
  'discard 655872 512'
  'write -f -P 0xa4 1M 4k'
  'write -z -f 1028k 4k'
  'flush'
  'write -zu -n 1280k 64k'
  'write -P 0xa5 2M 8M'
  'write -P 0xa6 2560k 512'
  'discard 3M 1M'
  'write -P 0xa7 3584k 4k'
  'write -P 0xa8 17M 512'
  'write -P 0xa9 18M 1M'
  'write -zu 18560k 64k'
  'discard 18688k 4k'
  'write -P 0xaa 33553920 512'
  'aio_write -P 0xab 20M 1M' 'aio_write -P 0xac 21M 1M' 'aio_write -z 22M 1M' 'aio_flush'
)
# Every byte of the disk, in order.
reads=(
  'read -P 0xa1 0 4608' 'read -P 0xa2 4608 512' 'read -P 0xa1 5120 60416'
  'read -P 0x11 65536 512' 'read -P 0xa3 66048 9728' 'read -P 0x11 75776 55296'
  'read -P 0 128k 64k' 'read -P 0x11 196608 512' 'read -P 0 197120 1024' 'read -P 0x11 198144 64000'
  'read -P 0 256k 64k' 'read -P 0x11 327680 512' 'read -P 0 328192 10752' 'read -P 0x11 338944 185344'
  'read -P 0 512k 64k' 'read -P 0x11 589824 512' 'read -P 0 590336 10240' 'read -P 0x11 600576 55296'
  'read -P 0 655872 512' 'read -P 0x11 656384 392192'
  'read -P 0xa4 1M 4k' 'read -P 0 1028k 4k' 'read -P 0x11 1032k 248k'
  'read -P 0 1280k 64k' 'read -P 0x11 1344k 704k'
  'read -P 0xa5 2M 512k' 'read -P 0xa6 2560k 512' 'read -P 0xa5 2621952 523776'
  'read -P 0 3M 512k' 'read -P 0xa7 3584k 4k' 'read -P 0 3588k 508k' 'read -P 0xa5 4M 6M'
  'read -P 0x11 10M 6M' 'read -P 0 16M 1M' 'read -P 0xa8 17M 512' 'read -P 0 17826304 1048064'
  'read -P 0xa9 18M 128k' 'read -P 0 18560k 64k' 'read -P 0xa9 18624k 64k' 'read -P 0 18688k 4k'
  'read -P 0xa9 18692k 764k' 'read -P 0 19M 1M' 'read -P 0xab 20M 1M' 'read -P 0xac 21M 1M'
  'read -P 0 22M 10485248' 'read -P 0xaa 33553920 512'
)
covered=0
for command in "${reads[@]}"; do
  # shellcheck disable=SC2086
  set -- $command
  (($(numfmt --from=iec "${4^^}") == covered)) || fail "the reads have a gap at $covered: $command"
  covered=$((covered + $(numfmt --from=iec "${5^^}")))
done
((covered == 32 * 1024 * 1024)) || fail "the reads cover $covered bytes"

serve disk
qemu_io "$uri" "${writes[@]}"
qemu_io "$uri" "${reads[@]}"
# Past the end nothing is written.
if qemu-io -f raw -c 'write 32M 512' "$uri" >past.out 2>&1; then fail 'a write past the end went'; fi
stop_nbdkit

for options in '' '-r' '--filter=blocksize' '--filter=noextents'; do
  # shellcheck disable=SC2086
  serve disk $options --threads 4
  qemu_io_read "$uri" "${reads[@]}"
  kill_nbdkit
  obd check disk
done
