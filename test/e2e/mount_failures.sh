#!/usr/bin/env bash
# obd-mount by FUSE: a system call of the helper fails, or the helper is killed, at every step of
# attaching, mounting and detaching. Afterwards nothing is left, or `recover` leaves nothing.

own_mounts=yes
time_limit=230
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
requires_command strace mkfs.ext4
# All steps take minutes; a run takes every so-many-th, beginning anywhere.
stride=${OBD_STEP_STRIDE:-12}

mkdir mnt
obd create disk --size 64M --mkfs ext4 >/dev/null

calls=(openat ioctl mkdir rename unlink fsync mount umount2 pipe2 fork,vfork,clone read rmdir flock
  pidfd_open poll write fdatasync)

# traced SYSCALL INJECTION N COMMAND...: 0 when the command did not get to an N-th such call.
traced() {
  local call=$1 injection=$2 n=$3 status=0
  shift 3
  strace --output=trace --trace="$call" --inject="$call:$injection:when=$n" "$@" >said 2>&1 || status=$?
  ((status != 0)) || { grep --quiet INJECTED trace || return 0; }
  if ((status == 0)); then return 1; fi  # it happened, and was survived
  return 2
}

steps=0
each_step() {
  local injection=$1 call n result
  shift
  for call in "${calls[@]}"; do
    for ((n = 1 + RANDOM % stride; n < 400; n += 1 + RANDOM % (2 * stride))); do
      prepare
      result=0
      traced "$call" "$injection" "$n" "$@" || result=$?
      verify "$call $injection $n: $(cat said)" "$result"
      ((result != 0)) || break
      steps=$((steps + 1))
    done
  done
}

attach=("$OBD_MOUNT" dir disk mnt --state-dir "$state" --backend fuse)
detach=("$OBD_MOUNT" umount mnt --state-dir "$state")

# Attaching fails: nothing is left. It may also get over it.
prepare() { :; }
verify() {
  if (($2 == 2)); then
    obd_mount_admin recover >/dev/null || fail "recover after $1"
  else
    "${detach[@]}" || fail "umount after $1"
  fi
  expect_nothing_left "$1"
}
each_step error=EIO "${attach[@]}"

# Attaching is killed: recover takes down what there is, or it is attached and can be detached.
verify() {
  obd_mount_admin recover >/dev/null || fail "recover after $1"
  if mountpoint --quiet mnt; then "${detach[@]}" || fail "umount after $1"; fi
  if [[ -n $(obd_mount_admin list) ]]; then obd_mount_admin umount disk || fail "umount after $1"; fi
  expect_nothing_left "$1"
}
each_step signal=KILL "${attach[@]}"

# Detaching fails or is killed: once more, and it is done; the file is there.
prepare() {
  "${attach[@]}" >/dev/null
  echo "$RANDOM" >mnt/file
  cp mnt/file expected
}
verify() {
  obd_mount_admin recover >/dev/null || fail "recover after $1"
  if mountpoint --quiet mnt; then "${detach[@]}" || fail "umount after $1"; fi
  if [[ -n $(obd_mount_admin list) ]]; then obd_mount_admin umount disk || fail "umount after $1"; fi
  expect_nothing_left "$1"
  obd export disk -o raw --force >/dev/null
  debugfs -R 'cat /file' raw 2>/dev/null | cmp - expected || fail "file lost after $1"
}
each_step error=EIO "${detach[@]}"
each_step signal=KILL "${detach[@]}"
obd check disk >/dev/null
printf '%s steps\n' "$steps"
