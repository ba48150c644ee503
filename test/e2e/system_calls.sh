#!/usr/bin/env bash
# What a request costs in system calls, counted from outside: system_calls.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1
requires_command strace
strace -qq -o strace.out true || skip 'strace is not allowed to trace'

requests=300
declare -A calls

# traced LOAD-OPTION...: loads the server under strace, whose options are in $watch; leaves in calls
# how often it made each system call meanwhile.
watch=()
traced() {
  local strace_pid name
  strace --quiet=all --follow-forks --output=calls --attach="$nbdkit_pid" "${watch[@]}" 2>strace.log &
  strace_pid=$!
  cleanup_fn stop_pid "$strace_pid"
  wait_until "$strace_pid" grep --quiet "^TracerPid:[[:space:]]*$strace_pid$" "/proc/$nbdkit_pid/status" ||
    fail "strace did not start: $(<strace.log)"
  "$programs/obd_load" --warm-up 0 --requests "$requests" --span 16777216 "$@" "$uri" >load.json
  kill -INT "$strace_pid"
  wait "$strace_pid" || true
  calls=()
  for name in pread64 pwrite64 fdatasync fsync fallocate ftruncate fstat newfstatat lseek futex; do
    calls[$name]=$(grep --count --extended-regexp "^[0-9]+ +$name\(" calls || true)
  done
  printf '%s:' "$*"
  for name in "${!calls[@]}"; do printf ' %s %d' "$name" "${calls[$name]}"; done
  printf '\n'
}

# expect_calls NAME MOST [LEAST]: by default exactly MOST.
expect_calls() {
  ((calls[$1] <= $2 && calls[$1] >= ${3:-$2})) ||
    fail "$requests requests made ${calls[$1]} calls of $1, expected ${3:-$2} to $2"
}
expect_no_other_calls() {
  local name
  for name in fdatasync fsync fallocate ftruncate fstat newfstatat lseek; do expect_calls "$name" 0; done
}

obd create disk --type "$type" --size 32M
# Without what is done in the background.
start_nbdkit server --verbose "$OBD_PLUGIN" disk/config.v1.json gc=off
# From here on the disk is data, and the session has begun.
"$programs/obd_load" --mix 0,100,0 --block 1048576 --sequential --once "$uri" >load.json

traced --mix 100,0,0 --depth 1
expect_calls pread64 "$requests"
expect_calls pwrite64 0
expect_no_other_calls

traced --mix 0,100,0 --depth 1
expect_calls pread64 0
case $type in
  append) expect_calls pwrite64 "$((2 * requests))" "$((requests + 1))" ;; # the payload and its record
  sparse) expect_calls pwrite64 "$requests" ;;
esac
expect_no_other_calls

# Each write is followed by a flush, 16 of all those in flight. Syncs take as long as on a disk, so
# that flushes meet. A round of syncs is one of the data and, where there are records, one of the
# log; two flushes a round is less than all that wait for the one before.
watch=(--inject=fdatasync:delay_enter=5000)
traced --mix 0,100,0 --depth 16 --flush-every 1
expect_calls fsync 0
stop_nbdkit
[[ $(<server.log) =~ ' '([0-9]+)' flushes by '([0-9]+)' syncs' ]] || fail 'the plugin told no statistics'
flushes=${BASH_REMATCH[1]} syncs=${BASH_REMATCH[2]}
((flushes >= requests - 1)) || fail "$flushes flushes of $requests arrived"
expect_calls fdatasync "$flushes" 1
((syncs >= calls[fdatasync])) || fail "the plugin counts $syncs syncs, but made ${calls[fdatasync]}"
