#!/usr/bin/env bash
# From a clean clone to a served disk that survives the death of its server, in one command.
#
# The demonstration is done with real clients. As root with FUSE and loop devices, the disk is
# mounted and files are copied onto it; elsewhere nbdcopy and debugfs do the same without mounting.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/quickstart.sh [--no-mount] [--help] [DIR]

Installs the packages needed, builds, and shows the main job: an ext4 disk on a writable layer over
a sealed one is served with nbdkit, files are written to it, the server is killed with SIGKILL and
started again, and every file is checked.

  DIR         where the demonstration's images go: a folder that is empty or does not exist
              (default: a new one in $TMPDIR or /tmp). It is kept, to play with.
  --no-mount  never mount, even where that is possible
  --help      this text
USAGE
}

fail() {
  printf '\nquickstart.sh: %s\n' "$*" >&2
  exit 1
}

mounting=yes
directory=
while (($# > 0)); do
  case "$1" in
    --no-mount) mounting=no ;;
    --help | -h)
      usage
      exit 0
      ;;
    -*)
      printf 'quickstart.sh: unknown argument %s\n\n' "$1" >&2
      usage >&2
      exit 2
      ;;
    *)
      [[ -z "$directory" ]] || fail "one DIR only, not also $1"
      [[ -n "$1" ]] || fail 'DIR is empty'
      directory=$(realpath -m -- "$1")
      ;;
  esac
  shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source_directory=$PWD
plugin=$source_directory/build/release/lib/nbdkit-overlaybd-plugin.so
obd=$source_directory/build/release/bin/obd

# Debian leaves the folders of mkfs, e2fsck and losetup out of an ordinary user's PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# --- What has to be undone on any exit -----------------------------------------------------------

scratch=           # a temporary folder: socket, mount points, copies of disks
server=            # process id of nbdkit
client=            # process id of nbdfuse
loop=              # loop device over nbdfuse's file
made_directory=no  # whether DIR is ours to remove after a failure

# Unmounting a file system whose server is dead reports errors that are expected.
detach() {
  if mountpoint --quiet "$scratch/mount"; then
    umount "$scratch/mount" 2>/dev/null || umount --lazy "$scratch/mount"
  fi
  if [[ -n "$loop" ]]; then
    losetup --detach "$loop"
    loop=
  fi
  if [[ -n "$client" ]]; then
    fusermount3 -u "$scratch/fuse" 2>/dev/null || fusermount3 -uz "$scratch/fuse" 2>/dev/null ||
      kill "$client" 2>/dev/null || true
    local deadline=$((SECONDS + 10))
    while kill -0 "$client" 2>/dev/null; do
      ((SECONDS < deadline)) || kill -KILL "$client" 2>/dev/null || true
      sleep 0.02
    done
    client=
  fi
}

end_server() {  # end_server SIGNAL
  [[ -n "$server" ]] || return 0
  kill "-$1" "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}

clean_up() {
  local status=$?
  trap - EXIT
  set +e
  if [[ -n "$scratch" ]]; then
    detach
    end_server KILL
    if ((status != 0)) && [[ -s "$scratch/log" ]]; then
      printf '\nThe last words of the server and its clients:\n' >&2
      tail -n 20 "$scratch/log" >&2
    fi
    mountpoint --quiet "$scratch/mount" || rm -rf --one-file-system "$scratch"
  fi
  if ((status != 0)) && [[ "$made_directory" == yes ]]; then
    rm -rf --one-file-system "$directory"
  fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# --- Saying what happens -------------------------------------------------------------------------

step_number=0
step() {
  step_number=$((step_number + 1))
  printf '\n[%d/7] %s\n' "$step_number" "$*"
}

say() { printf '      %s\n' "$*"; }

run() {  # shows a command, then runs it
  printf '      $'
  printf ' %q' "${@/#"$source_directory/"/}"
  printf '\n'
  "$@" 2>&1 | sed 's/^/      /'
}

run_logged() {  # run_logged LOG COMMAND...: shows the log only when the command fails
  local log=$1
  shift
  "$@" >>"$log" 2>&1 || {
    tail -n 40 "$log" >&2
    fail "this failed: $* (the whole log: $log)"
  }
}

# --- A server, and clients of it -----------------------------------------------------------------

start_server() {  # start_server IMAGE
  rm -f "$scratch/socket"
  nbdkit --foreground --unix "$scratch/socket" "$plugin" "$1" \
    </dev/null >>"$scratch/log" 2>&1 &
  server=$!
  local deadline=$((SECONDS + 30))
  until nbdinfo --size "$uri" >/dev/null 2>&1; do
    kill -0 "$server" 2>/dev/null || fail "nbdkit ended instead of serving $1"
    ((SECONDS < deadline)) || fail "nbdkit did not serve $1 within 30 seconds"
    sleep 0.05
  done
  say "nbdkit serves $1 (pid $server)"
}

attach() {
  mkdir -p "$scratch/fuse" "$scratch/mount" || return 1
  nbdfuse "$scratch/fuse" --unix "$scratch/socket" </dev/null >>"$scratch/log" 2>&1 &
  client=$!
  disown "$client"  # it aborts when its server dies: no news to report
  local deadline=$((SECONDS + 30))
  until [[ -e "$scratch/fuse/nbd" ]]; do
    kill -0 "$client" 2>/dev/null || return 1
    ((SECONDS < deadline)) || return 1
    sleep 0.02
  done
  loop=$(losetup --find --show --direct-io=on "$scratch/fuse/nbd" 2>>"$scratch/log") || return 1
  mount -t ext4 "$loop" "$scratch/mount" 2>>"$scratch/log" || return 1
  mountpoint --quiet "$scratch/mount"
}

choose_client() {
  if [[ "$mounting" == yes ]]; then
    if ((EUID == 0)) && [[ -w /dev/fuse ]] && attach; then
      say 'client: the disk is mounted through nbdfuse and a loop device'
    else
      mounting=no
    fi
    detach
  fi
  if [[ "$mounting" == no ]]; then
    say 'client: nbdcopy and debugfs (mounting needs root, FUSE and loop devices)'
    : >"$scratch/log"
  fi
}

# Writes the files of a folder to the root of the served file system, and leaves it mounted.
put_files() {  # put_files FOLDER
  if [[ "$mounting" == yes ]]; then
    attach || fail 'the disk could not be mounted'
    cp "$1"/* "$scratch/mount/"
    sync --file-system "$scratch/mount"
    return
  fi
  nbdcopy "$uri" "$scratch/disk.raw"
  local file
  for file in "$1"/*; do
    printf 'rm %s\nwrite %s %s\n' "${file##*/}" "$file" "${file##*/}"
  done >"$scratch/commands"
  debugfs -w -f "$scratch/commands" "$scratch/disk.raw" >>"$scratch/log" 2>&1
  nbdcopy "$scratch/disk.raw" "$uri"
  rm "$scratch/disk.raw"
}

# Fails unless every file of a folder reads back the same and the file system is sound.
check_files() {  # check_files FOLDER
  (cd "$1" && sha256sum -- *) >"$scratch/checksums"
  if [[ "$mounting" == yes ]]; then
    attach || fail 'the disk could not be mounted again'
    (cd "$scratch/mount" && sha256sum --check --quiet "$scratch/checksums") ||
      fail 'the files differ'
    umount "$scratch/mount"
    e2fsck -fn "$loop" >>"$scratch/log" 2>&1 || fail 'e2fsck found the file system damaged'
    detach
  else
    nbdcopy "$uri" "$scratch/disk.raw"
    e2fsck -fn "$scratch/disk.raw" >>"$scratch/log" 2>&1 ||
      fail 'e2fsck found the file system damaged'
    mkdir "$scratch/read"
    local file
    for file in "$1"/*; do
      printf 'dump %s %s\n' "${file##*/}" "$scratch/read/${file##*/}"
    done >"$scratch/commands"
    debugfs -f "$scratch/commands" "$scratch/disk.raw" >>"$scratch/log" 2>&1
    (cd "$scratch/read" && sha256sum --check --quiet "$scratch/checksums") ||
      fail 'the files differ'
    rm -r "$scratch/disk.raw" "$scratch/read"
  fi
  say "$(wc -l <"$scratch/checksums") files have the right SHA-256, and e2fsck finds no fault"
}

# --- The demonstration ---------------------------------------------------------------------------

if [[ -e "$directory" && (! -d "$directory" || -n "$(ls -A -- "$directory")") ]]; then
  fail "$directory exists and is not an empty folder"
fi

printf 'A writable disk image: built, served over NBD, killed, and nothing lost.\n'

step 'Packages'
scripts/setup.sh | sed 's/^/      /'

step 'Build (some minutes the first time)'
mkdir -p build/release
build_log=$source_directory/build/release/quickstart.log
: >"$build_log"
if [[ -f build/release/build.ninja ]]; then
  run_logged "$build_log" cmake --preset release
else
  run_logged "$build_log" cmake --preset release -DOBD_TESTS=OFF
fi
run_logged "$build_log" cmake --build --preset release --target obd nbdkit-overlaybd-plugin
say "plugin:  ${plugin#"$source_directory/"}"
say "program: ${obd#"$source_directory/"}"

if [[ -z "$directory" ]]; then
  directory=$(mktemp -d "${TMPDIR:-/tmp}/overlaybd-demo.XXXXXX")
  made_directory=yes
elif [[ ! -e "$directory" ]]; then
  mkdir -p -- "$directory"
  made_directory=yes
fi
base=$directory/base/config.v1.json
disk=$directory/disk/config.v1.json
scratch=$(mktemp -d /tmp/overlaybd-quickstart.XXXXXX)
uri="nbd+unix:///?socket=$scratch/socket"

step 'A base image: ext4 and two files, then sealed so that nothing can change it any more'
run "$obd" create "$directory/base" --size 256M --mkfs ext4
start_server "$base"
choose_client
mkdir "$scratch/base_files"
cp LICENSE README.md "$scratch/base_files/"
put_files "$scratch/base_files"
detach
end_server TERM
run "$obd" seal "$base"

step 'A writable image over it'
run "$obd" create "$directory/disk" --lower "$directory/base/writable_data"
start_server "$disk"

step 'A client writes: 40 new files, and one of the base changed'
mkdir "$scratch/files"
for number in {01..40}; do
  head -c $((RANDOM * 64 + 1)) /dev/urandom >"$scratch/files/random-$number"
done
cp LICENSE "$scratch/files/LICENSE"
{
  cat README.md
  printf '\nThis line is in the writable layer only.\n'
} >"$scratch/files/README.md"
put_files "$scratch/files"
say "$(du --apparent-size -sh "$scratch/files" | cut -f1) written"

step 'The server is killed: no unmount, no goodbye'
killed=$server
say "\$ kill -9 $killed"
end_server KILL
[[ ! -e "/proc/$killed" ]] || fail "process $killed is still there"
say "process $killed is gone"
detach

step 'A new server on the same files, and every file is read back'
start_server "$disk"
check_files "$scratch/files"
end_server TERM
run "$obd" check "$disk"

demo_socket=$directory/nbd.sock
((${#demo_socket} < 100)) || demo_socket=/tmp/overlaybd-demo.sock
printf -v plugin_word '%q' "${plugin#"$source_directory/"}"
printf -v obd_word '%q' "${obd#"$source_directory/"}"
printf -v disk_word '%q' "$disk"
printf -v socket_word '%q' "$demo_socket"
printf -v qcow2_word '%q' "$directory/disk.qcow2"
printf -v directory_word '%q' "$directory"
printf -v source_word '%q' "$source_directory"

cat <<NEXT

Done: nothing was lost. The images are kept in $directory.

What to type next:

  cd $source_word

  # Look at the image, its layers, and where its blocks are
  $obd_word info $disk_word
  $obd_word map $disk_word

  # Serve it until ^C; then, in another terminal, look at it as a client
  nbdkit -f -U $socket_word $plugin_word $disk_word
  nbdinfo nbd+unix:///?socket=$socket_word

  # Convert it to qcow2
  nbdkit -U - $plugin_word $disk_word --run 'qemu-img convert -p -O qcow2 "\$uri" $qcow2_word'

  # Run every test
  scripts/test.sh

  # Throw the demonstration away
  rm -r $directory_word
NEXT
