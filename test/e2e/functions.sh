# What every end-to-end test starts with: `. "$(dirname "$0")/functions.sh"`.
#
# A test that mounts something sets own_mounts=yes before that line: it then runs in a mount
# namespace of its own, whose mounts no other process sees and which go away with its last process.
# One that may take more than 200 seconds sets time_limit before that line.
#
# Gives a folder of its own ($tmp, the current one), cleaning up on every kind of exit, servers, and
# checks. A test ends with status 0 when all was right, 77 when this host lacks what it needs.
# Environment: OBD_TOOL, OBD_PLUGIN and OBD_BUILD_DIR name what is tested (default: build/release).
# shellcheck shell=bash

set -euo pipefail
shopt -s inherit_errexit

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
OBD_BUILD_DIR=${OBD_BUILD_DIR:-$source_dir/build/release}
OBD_TOOL=${OBD_TOOL:-$OBD_BUILD_DIR/bin/obd}
OBD_PLUGIN=${OBD_PLUGIN:-$OBD_BUILD_DIR/lib/nbdkit-overlaybd-plugin.so}
# Used by the tests that bring a program of their own.
# shellcheck disable=SC2034
programs=$OBD_BUILD_DIR/test
test_name=$(basename "$0" .sh)${*:+ $*}
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

skip() {
  printf 'SKIPPED %s: %s\n' "$test_name" "$1" >&2
  exit 77
}

fail() {
  printf 'FAILED %s, line %s: %s\n' "$test_name" "${BASH_LINENO[-2]}" "$1" >&2
  exit 1
}

requires_command() {
  local command
  for command in "$@"; do
    command -v "$command" >/dev/null || skip "there is no program $command (scripts/setup.sh --dev)"
  done
}

requires_root() { ((EUID == 0)) || skip 'only root can do this'; }

requires_fuse() {
  requires_command nbdfuse fusermount3
  [[ -w /dev/fuse ]] || skip '/dev/fuse cannot be used'
}

requires_loop_devices() { losetup --find >/dev/null 2>&1 || skip 'there is no free loop device'; }

# A test that hangs is ended from outside with SIGTERM, so that it still cleans up.
if [[ -z ${OBD_E2E_GUARDED:-} ]]; then
  [[ -z ${own_mounts:-} ]] || requires_root
  export OBD_E2E_GUARDED=1
  exec ${own_mounts:+unshare --mount --propagation private} \
    timeout --kill-after=20 "${time_limit:-200}" bash "$0" "$@"
fi

# --- cleaning up ---

cleanup_commands=()

# cleanup_fn COMMAND...: runs it when the test ends, the last one first. Its failure is ignored.
cleanup_fn() { cleanup_commands+=("${*@Q}"); }

run_cleanup() {
  local status=$? i log
  trap '' HUP INT TERM
  trap - ERR
  set +e
  if ((status != 0 && status != 77)) && [[ -n ${tmp:-} ]]; then
    for log in "$tmp"/*.log; do
      [[ -s $log ]] && printf -- '--- %s\n' "${log##*/}" >&2 && tail -n 40 "$log" >&2
    done
  fi
  for ((i = ${#cleanup_commands[@]} - 1; i >= 0; --i)); do
    eval "${cleanup_commands[i]}" >/dev/null 2>&1
  done
  exit "$status"
}
trap run_cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'printf "FAILED %s, %s line %s: %s\n" "$test_name" "${BASH_SOURCE##*/}" "$LINENO" "$BASH_COMMAND" >&2' ERR
set -E

# Numbers of ended processes are given to others soon, on a host where many tests run: a process is
# this test's own when it has the test's mark in its environment.
is_own() { grep --null-data --fixed-strings --line-regexp --quiet "OBD_E2E_FOLDER=$tmp" "/proc/$1/environ"; }

stop_pid() {
  local i
  is_own "$1" || return 0
  kill "$1" || return 0
  for ((i = 0; i < 100; ++i)); do
    kill -0 "$1" || return 0
    sleep 0.05
  done
  kill -KILL "$1"
}

[[ -x $OBD_TOOL && -e $OBD_PLUGIN ]] || fail "build first: $OBD_TOOL or $OBD_PLUGIN is missing"
requires_command nbdkit nbdinfo nbdcopy qemu-img qemu-io jq

tmp=$(mktemp --directory "${TMPDIR:-/tmp}/obd-e2e.XXXXXXXX")
cleanup_fn rm --recursive --force "$tmp"
export OBD_E2E_FOLDER=$tmp
cd "$tmp"

obd() { "$OBD_TOOL" "$@"; }

# detach_loop DEVICE: for cleaning up. By then the number may be that of somebody else's file.
detach_loop() {
  [[ $(losetup --noheadings --output BACK-FILE "$1") != "$tmp"/* ]] || losetup --detach "$1"
}

# --- servers ---

# Waits until a command succeeds; fails when process PID ends before, or after 30 seconds.
wait_until() {
  local pid=$1 i
  shift
  for ((i = 0; i < 1500; ++i)); do
    "$@" >/dev/null 2>&1 && return
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.02
  done
  return 1
}

# start_nbdkit NAME ARGUMENT...: serves in the background; sets nbdkit_pid and uri. Two servers of
# one test need different names. What nbdkit says goes to NAME.log.
start_nbdkit() {
  local name=$1
  shift
  uri="nbd+unix:///?socket=$tmp/$name.sock"
  rm -f "$name.sock" "$name.pid"
  nbdkit --foreground --pidfile "$tmp/$name.pid" --unix "$tmp/$name.sock" "$@" 2>>"$name.log" &
  nbdkit_pid=$!
  cleanup_fn stop_pid "$nbdkit_pid"
  # nbdkit writes the file when it is ready for clients.
  wait_until "$nbdkit_pid" test -s "$name.pid" || fail "nbdkit $* did not start"
}

# Serves an image with the plugin under test: serve IMAGE [NBDKIT-OPTION...].
serve() {
  local image=$1
  shift
  start_nbdkit server "$@" "$OBD_PLUGIN" "$image/config.v1.json"
}

# Ends the server in order: connections are closed, the image is closed.
stop_nbdkit() {
  kill -TERM "$nbdkit_pid"
  wait "$nbdkit_pid" || fail 'nbdkit failed at its end'
}

# Ends the server as a crash does.
kill_nbdkit() {
  kill -KILL "$nbdkit_pid"
  reap_killed "$nbdkit_pid"
}

# Waits for a server that somebody killed; bash's own notice of it is of no interest.
reap_killed() { { wait "$1" || true; } 2>/dev/null; }

# One command for a server of its own; $uri is set in it: with_server IMAGE 'nbdinfo "$uri"'.
with_server() { nbdkit --unix - "$OBD_PLUGIN" "$1/config.v1.json" --run "$2"; }

# --- checks ---

# expect_fail STATUS PATTERN COMMAND...: the command must end with that status and say something
# that matches the extended regular expression; what it said is left in $said.
expect_fail() {
  local status=$1 pattern=$2 got=0
  shift 2
  said=$("$@" 2>&1) || got=$?
  ((got == status)) || fail "$* ended with $got, expected $status; it said: $said"
  grep --extended-regexp --quiet -- "$pattern" <<<"$said" ||
    fail "$* did not say /$pattern/ but: $said"
}

# expect_json FILE FILTER...: each jq filter must give true. FILE is read once: it may be a pipe.
expect_json() {
  local file=$1 text filter
  shift
  text=$(cat "$file")
  [[ -n $text ]] || fail "$file is empty"
  jq --exit-status . <<<"$text" >/dev/null || fail "$file is not JSON: ${text:0:300}"
  for filter in "$@"; do
    jq --exit-status "$filter" <<<"$text" >/dev/null || fail "not so: $filter in $(jq -c . <<<"$text")"
  done
}

# expect_same FILE FILE
expect_same() { cmp -- "$1" "$2" || fail "$1 and $2 differ"; }

# read_disk IMAGE RAW [NBDKIT-OPTION...]: the whole disk, read over NBD.
read_disk() {
  local image=$1 raw=$2
  shift 2
  rm -f "$raw"
  nbdkit --unix - "$@" "$OBD_PLUGIN" "$image/config.v1.json" --run "nbdcopy \"\$uri\" '$raw'"
}

# expect_disk IMAGE RAW [NBDKIT-OPTION...]: the disk's content, read over NBD, is that of RAW.
expect_disk() {
  local image=$1 raw=$2
  shift 2
  read_disk "$image" disk_read.raw "$@"
  expect_same "$raw" disk_read.raw
  rm disk_read.raw
}

# qemu_io URI COMMAND...: qemu-io's commands in one process; a wrong pattern or an error fails.
qemu_io() { run_qemu_io --discard=unmap "$@"; }
# The same for a disk that is only read.
qemu_io_read() { run_qemu_io --read-only "$@"; }

run_qemu_io() {
  local option=$1 uri=$2 command arguments=()
  shift 2
  for command in "$@"; do arguments+=(-c "$command"); done
  qemu-io --format raw "$option" "${arguments[@]}" "$uri" >qemu_io.out 2>&1 ||
    fail "qemu-io: $(grep -v '^wrote\|^read\|^discard\|ops; ' qemu_io.out)"
  if grep -i 'verification failed\|error\|fail' qemu_io.out; then fail "qemu-io $*"; fi
}

# --- disks ---

# random_raw RAW SIZE: a raw disk of random bytes.
random_raw() { head -c "$(numfmt --from=iec "$2")" /dev/urandom >"$1"; }

# poke FILE OFFSET BYTES: overwrites bytes; printf's escapes are understood.
poke() {
  # shellcheck disable=SC2059
  printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# patch RAW OFFSET SOURCE: puts the whole file SOURCE at that offset.
patch() { dd if="$3" of="$1" bs=4096 oflag=seek_bytes seek="$2" conv=notrunc status=none; }

# zero_range RAW OFFSET LENGTH
zero_range() {
  head -c "$3" /dev/zero | dd of="$1" bs=64K oflag=seek_bytes seek="$2" conv=notrunc status=none
}

# Everything about the files below a folder that a reader must not change, access times left out.
fingerprint() {
  find "$@" -printf '%p %y %i %s %m %T@ %C@\n' | sort
  find "$@" -type f -print0 | sort --zero-terminated | xargs --null sha256sum
}
