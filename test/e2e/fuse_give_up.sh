#!/usr/bin/env bash
# A server that is missed for longer than --give-up-after: errors until there is one again. One that
# has another disk is none, and one that still runs is waited for.
own_mounts=yes
. "$(dirname "$0")/functions.sh"
. "$source_dir/test/e2e/fuse_functions.sh"
requires_command python3

read_block() { dd if=file of=block.raw bs=4096 count=1 iflag=direct status=none; }
write_block() { dd if="$1" of=file bs=4096 count=1 oflag=direct conv=notrunc status=none; }

obd create disk --size 16M
obd create other --size 32M
random_raw first.raw 4096
random_raw second.raw 4096
serve disk
start_fuse --give-up-after 1.5
write_block first.raw
kill_nbdkit

# Who asks at once waits for the whole time, who asks later is told at once.
before=$(date +%s%N)
expect_fail 1 'Input/output error' write_block second.raw
waited=$((($(date +%s%N) - before) / 1000000))
((waited > 700 && waited < 15000)) || fail "the error came after $waited ms"
expect_fail 1 'Input/output error' read_block
until_said 'no server for 1.5 seconds'

serve other
until_said 'the export has 33554432 bytes now and had 16777216'
expect_fail 1 'Input/output error' read_block
kill_nbdkit
serve disk -r
until_said 'the export cannot be written any more'
expect_fail 1 'Input/output error' read_block
kill_nbdkit

serve disk
until_said 'connected again'
read_block
expect_same block.raw first.raw
write_block second.raw
read_block
expect_same block.raw second.raw

# Within the time, the wrong disk is waited out.
kill_nbdkit
start_nbdkit server memory 32M
read_block &
reader=$!
sleep 0.5
kill -0 $reader || fail 'a read was answered by the wrong disk'
kill_nbdkit
serve disk
wait $reader || fail 'a read failed within the time'
expect_same block.raw second.raw

stop_fuse

# The old server has hung up but still runs, and could yet carry out a write: nothing is sent to the
# next one, which has its socket now, before it has ended.
stop_nbdkit
rm server.sock
python3 "$source_dir/test/e2e/hang_up_server.py" "$tmp/server.sock" 2>>hang_up.log &
old_pid=$!
cleanup_fn stop_pid $old_pid
wait_until $old_pid test -e server.sock
rm fuse.log
start_fuse
write_block first.raw &
writer=$!
until_said 'lost the connection'
start_nbdkit server memory 16M
until_said "process $old_pid, has closed the connection but still runs"
kill -0 $writer || fail 'a write was not held back'
if grep 'connected again' fuse.log; then fail 'the old server was not waited for'; fi
kill -KILL $old_pid
reap_killed $old_pid
wait $writer || fail 'a write was lost with its server'
read_block
expect_same block.raw first.raw
stop_fuse
stop_nbdkit

# A server that went to the background cannot be told from one that still runs: what it has not answered
# fails, later requests go to the next one.
rm -f server.sock server.pid
nbdkit --pidfile "$tmp/server.pid" --unix "$tmp/server.sock" --filter=delay memory 16M rdelay=60
wait_until $$ test -s server.pid
nbdkit_pid=$(<server.pid)
cleanup_fn eval "is_own $nbdkit_pid && kill -KILL $nbdkit_pid"
start_fuse
expect_fail 1 'Input/output error' read_block &
reader=$!
sleep 0.5
kill -KILL "$nbdkit_pid"
wait $reader || fail 'a read was repeated that may not be'
until_said 'its process is not known'
start_nbdkit server memory 16M
until_said 'connected again after [0-9.]* seconds'
read_block
stop_fuse
stop_nbdkit
