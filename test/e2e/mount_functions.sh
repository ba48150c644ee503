# For tests of obd-mount, after functions.sh: a state folder of the test's own, and checks that
# nothing is left behind. Sourced by tests that run with own_mounts=yes.
# shellcheck shell=bash

OBD_MOUNT=$OBD_BUILD_DIR/bin/obd-mount
requires_root
requires_fuse
requires_loop_devices
state=$tmp/state
cleanup_fn take_down_all

obd_mount() { "$OBD_MOUNT" "$@" --state-dir "$state" --backend fuse; }
# For the subcommands that attach nothing.
obd_mount_admin() { "$OBD_MOUNT" "$@" --state-dir "$state"; }

# pid_of NAME [IMAGE-STATE-FOLDER]: of a process of the one attached image: server, front_end, supervisor.
pid_of() { cut --delimiter=' ' --fields=1 "${2:-$(echo "$state"/*/)}/$1.pid"; }

is_dead() { ! kill -0 "$1" 2>/dev/null || [[ $(ps -o state= -p "$1") == Z* ]]; }

# wait_for SECONDS COMMAND...
wait_for() {
  local seconds=$1 end=$((EPOCHSECONDS + $1 + 1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((EPOCHSECONDS < end)) || fail "not within $seconds seconds: $*"
    sleep 0.02
  done
}

# Whatever of this test's runs, is attached or is mounted; empty when nothing is.
leftovers() {
  local pid file
  find "$state" -mindepth 1 2>/dev/null || true
  losetup --noheadings --list --output NAME,BACK-FILE | grep --fixed-strings "$state" || true
  grep --fixed-strings " $tmp/" /proc/self/mountinfo || true
  for file in /proc/[0-9]*/cmdline; do
    pid=${file//[!0-9]/}
    if tr '\0' ' ' <"$file" 2>/dev/null | grep --fixed-strings --quiet "$state/" ||
      tr '\0' ' ' <"$file" 2>/dev/null | grep --fixed-strings --quiet -- "--state-dir $state"; then
      is_dead "$pid" || printf 'process %s: %s\n' "$pid" "$(tr '\0' ' ' <"$file")"
    fi
  done 2>/dev/null
}

expect_nothing_left() {
  local left
  left=$(leftovers)
  [[ -z $left ]] || fail "left behind${1:+ after $1}: $left"
}

# Whatever state the test is in.
take_down_all() {
  local directory device file
  while read -r directory; do umount --lazy "$directory"; done < <(
    awk -v tmp="$tmp/" 'index($5, tmp) == 1 { print $5 }' /proc/self/mountinfo | tac)
  for file in "$state"/*/supervisor.pid "$state"/*/front_end.pid "$state"/*/server.pid; do
    [[ -e $file ]] && is_own "$(cut -d' ' -f1 "$file")" && kill -KILL "$(cut -d' ' -f1 "$file")"
  done
  losetup --noheadings --list --output NAME,BACK-FILE | while read -r device file; do
    [[ $file != "$state"/* ]] || losetup --detach "$device"
  done
}
