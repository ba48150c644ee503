#!/usr/bin/env bash
# A server that is killed and started again, time after time: no reader or writer of the loop device
# sees an error, and no write is lost: fuse_kill.sh append|sparse
own_mounts=yes
. "$(dirname "$0")/functions.sh"
. "$source_dir/test/e2e/fuse_functions.sh"
requires_command losetup fio
type=$1

obd create disk --type "$type" --size 64M
serve disk
start_fuse
attach_loop

# Two at once, each on its half of the disk: what is written is verified as it goes, and all at the
# end. When fio has written every block once it begins again, without waiting: a block that is still
# in flight may be written a second time, and of two such writes no order is promised.
fio --output=fio.log --filename="$loop" --direct=1 --ioengine=libaio --group_reporting \
  --serialize_overlap=1 --time_based --runtime=20 --fsync=64 \
  --verify=crc32c --verify_fatal=1 --verify_backlog=512 \
  --name=small --rw=randwrite --bsrange=4k-16k --iodepth=16 --offset=0 --size=32M \
  --name=large --rw=randwrite --bs=1M --iodepth=4 --offset=32M --size=32M &
fio_pid=$!
cleanup_fn stop_pid $fio_pid
kills=0
while kill -0 $fio_pid 2>/dev/null; do
  sleep "0.$((RANDOM % 9 + 1))"
  kill_nbdkit
  ((++kills))
  # Sometimes it is missed for longer.
  ((kills % 5)) || sleep 1
  serve_again disk
done
wait $fio_pid || fail "fio failed after $kills kills: $(tail -n 5 fio.log)"
echo "$kills kills"
((kills >= 10)) || fail 'too few kills to tell anything'
# Reads that were in flight are repeated, too.
(($(grep --count 'connected again' fuse.log) >= 5)) || fail 'the server was hardly missed'

# A server that ends in order, refusing requests meanwhile, is nothing else.
fio --output=fio.log --filename="$loop" --direct=1 --ioengine=libaio --iodepth=16 \
  --serialize_overlap=1 --name=end --rw=randwrite --bs=4k --size=64M --io_size=1G --time_based \
  --runtime=4 --verify=crc32c --verify_fatal=1 &
fio_pid=$!
cleanup_fn stop_pid $fio_pid
for ((i = 0; i < 4; ++i)); do
  sleep 0.5
  # nbdkit 1.32 may abort when it ends with requests in flight: then it died like the others.
  kill -TERM "$nbdkit_pid"
  # Without any in flight it ends at the next one, and fio may be through.
  while kill -0 "$nbdkit_pid" 2>/dev/null; do
    dd if="$loop" of=/dev/null bs=4k count=1 iflag=direct status=none &
    sleep 0.1
  done
  reap_killed "$nbdkit_pid"
  serve_again disk
done
wait $fio_pid || fail "fio failed over orderly ends: $(tail -n 5 fio.log)"

losetup --detach "$loop"
stop_fuse
stop_nbdkit
obd check disk
