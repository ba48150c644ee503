#!/usr/bin/env bash
# obd-mount by FUSE: a system call of the helper fails, or the helper is killed, at any step of
# attaching, mounting and detaching. Afterwards nothing is left, or `recover` leaves nothing.
# There are some hundred steps: OBD_STEP_SECONDS (default 20) are spent on a random choice of them,
# 0 means all.

own_mounts=yes
time_limit=${OBD_STEP_SECONDS:+100000}
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
requires_command strace mkfs.ext4
seconds=${OBD_STEP_SECONDS:-20}

mkdir mnt
obd create disk --size 64M --mkfs ext4 >/dev/null
attach=("$OBD_MOUNT" dir disk mnt --state-dir "$state" --backend fuse)
detach=("$OBD_MOUNT" umount mnt --state-dir "$state")
calls=openat,ioctl,mkdir,rename,unlink,fsync,fdatasync,mount,umount2,pipe2,fork,vfork,clone,read,rmdir
calls+=,flock,pidfd_open,poll,write,mount_setattr,fsopen,connect

# list_steps COMMAND...: "CALL N" for each call that the command makes.
list_steps() {
  strace --output=trace --trace="$calls" "$@" >/dev/null
  sed --regexp-extended --quiet 's/^([a-z_0-9]+)\(.*/\1/p' trace | awk '{ print $1, ++n[$1] }'
}
list_steps "${attach[@]}" >attach.steps
list_steps "${detach[@]}" >detach.steps
expect_nothing_left 'an untouched run'
{
  sed 's/^/attach error=EIO /; p; s/error=EIO/signal=KILL/' attach.steps
  sed 's/^/detach error=EIO /; p; s/error=EIO/signal=KILL/' detach.steps
} >steps

# Whatever happened, this takes everything down, and the image is as it should be.
put_in_order() {
  obd_mount_admin recover >recovered 2>&1 || fail "recover after $1: $(cat recovered)"
  if mountpoint --quiet mnt; then "${detach[@]}" || fail "umount after $1"; fi
  if [[ -n $(obd_mount_admin list) ]]; then obd_mount_admin umount disk || fail "umount after $1"; fi
  expect_nothing_left "$1"
}

try_step() {
  local action=$1 injection=$2 call=$3 n=$4 status=0 command
  local step="$action with $injection at $call $n"
  if [[ $action == attach ]]; then
    command=("${attach[@]}")
  else
    command=("${detach[@]}")
    "${attach[@]}" >/dev/null
    echo "$RANDOM" >mnt/file
    cp mnt/file expected
  fi
  { strace --output=trace --trace="$call" --inject="$call:$injection:when=$n" "${command[@]}" >said 2>&1 ||
    status=$?; } 2>/dev/null
  # A failure that was reported has been undone by then, but for what recover can do better.
  if [[ $action == attach && $injection == error=* ]] && ((status != 0)); then
    grep --quiet 'could not be undone' said || expect_nothing_left "$step: $(cat said)"
  fi
  put_in_order "$step: $(cat said)"
  [[ $action == attach ]] && return
  obd export disk -o raw --force >/dev/null
  debugfs -R 'cat /file' raw 2>/dev/null | cmp - expected || fail "the file is lost after $step"
}

done=0
while read -r action injection call n; do
  ((seconds == 0 || SECONDS < seconds)) || break
  try_step "$action" "$injection" "$call" "$n"
  done=$((done + 1))
done < <(shuf steps)
obd check disk >/dev/null
printf '%s of %s steps\n' "$done" "$(wc -l <steps)"
