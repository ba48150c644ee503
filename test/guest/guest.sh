# What every test with a virtual machine starts with: `. "$(dirname "$0")/guest.sh"`. It brings all
# of ../e2e/functions.sh.
#
#   make_initramfs NAME ARGUMENT... <<'GUEST'   what a guest consists of, and what it does
#   boot NAME ARGUMENT...                       runs it to its end; or start_guest, then end_guest
#
# A guest passes when its payload's commands all succeed. Guests are slow (no KVM): a boot takes
# some seconds. They have no network. What a guest says goes to NAME.console.log; the consoles of a
# test that failed are kept in test/consoles/ of the build folder.
# Environment: OBD_GUEST_CACHE is where the kernel is kept.
# shellcheck shell=bash

guest_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../e2e/functions.sh
. "$guest_dir/../e2e/functions.sh"

requires_command qemu-system-x86_64 busybox cpio modinfo strip
guest_kernel=$("$guest_dir/fetch_kernel.sh" 2>kernel.err) || skip "$(<kernel.err)"

# What a guest needs to serve images.
# shellcheck disable=SC2034
image_programs=("$(command -v nbdkit)" "$OBD_PLUGIN" "$OBD_TOOL")
# shellcheck disable=SC2034
guest_plugin=/usr/local/lib/${OBD_PLUGIN##*/}

guest_seconds=100 # how long a guest may take, on a busy host
# no_timer_check: a busy host fails it.
kernel_parameters='console=ttyS0 panic=-1 quiet no_timer_check mitigations=off nokaslr'
kernel_parameters+=' random.trust_cpu=on'
declare -A guest_pids=()
consoles=$OBD_BUILD_DIR/test/consoles/${test_name// /.}

keep_consoles() {
  # run_cleanup's
  # shellcheck disable=SC2154
  ((status == 0 || status == 77)) ||
    install -D --mode=644 --target-directory="$consoles" ./*.console.log
}
cleanup_fn keep_consoles

# make_initramfs NAME ARGUMENT...: NAME.initramfs with virtio disks, what the arguments add
# (make_initramfs.sh --help), and the payload from standard input.
make_initramfs() {
  local name=$1
  shift
  cat >"$name.payload"
  "$guest_dir/make_initramfs.sh" --kernel "$guest_kernel" --payload "$name.payload" \
    --output "$name.initramfs" --module virtio_pci --module virtio_blk "$@"
}

# start_guest NAME [ARGUMENT...]: boots a guest in the background.
#   --initramfs NAME   another one's initramfs
#   --nbd SOCKET       a disk: the NBD export at that Unix socket; waits 30 s for a server to return
#   --raw FILE         a disk: a raw file; what the guest has not written out is lost with the guest
#   --append TEXT      for the kernel's command line; NAME=VALUE gets into the payload's environment
# The disks are /dev/vda, /dev/vdb, ... in the order of the arguments.
start_guest() {
  local name=$1 initramfs=$1 append='' disks=() nodes=0 backend
  shift
  while (($# > 0)); do
    backend=
    case $1 in
      --initramfs) initramfs=$2 ;;
      --append) append+=" $2" ;;
      --nbd) backend="driver=nbd,server.type=unix,server.path=$2,reconnect-delay=30" ;;
      --raw) backend="driver=file,filename=$2" ;;
      *) fail "start_guest: unknown argument $1" ;;
    esac
    if [[ -n $backend ]]; then
      disks+=(-blockdev "$backend,node-name=disk$nodes,discard=unmap"
        -device "virtio-blk-pci,drive=disk$nodes")
      nodes=$((nodes + 1))
    fi
    shift 2
  done
  rm -f "$name.console.log" # a guest of that name may have run before
  # Never KVM: on hosts that are guests themselves it may hang rather than fail.
  qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 512 -nodefaults -display none \
    -no-reboot -serial "file:$name.console.log" -kernel "$guest_kernel/vmlinuz" \
    -initrd "$initramfs.initramfs" -append "$kernel_parameters$append" "${disks[@]}" \
    </dev/null >"$name.qemu.log" 2>&1 &
  guest_pids[$name]=$!
  cleanup_fn stop_guest "$name"
}

# For cleaning up. The process id of a guest that has ended may be somebody else's by then.
stop_guest() { [[ -z ${guest_pids[$1]:-} ]] || stop_pid "${guest_pids[$1]}"; }

# wait_console NAME PATTERN: waits until the guest has said a line that matches the extended regular
# expression.
wait_console() {
  local name=$1 pattern=$2 deadline=$((SECONDS + guest_seconds))
  until grep --extended-regexp --quiet -- "$pattern" "$name.console.log" 2>/dev/null; do
    # One more look, because the guest may have said it last.
    kill -0 "${guest_pids[$name]}" 2>/dev/null ||
      grep --extended-regexp --quiet -- "$pattern" "$name.console.log" ||
      fail "guest $name ended without saying /$pattern/"
    ((SECONDS < deadline)) || fail "guest $name did not say /$pattern/ in $guest_seconds seconds"
    sleep 0.05
  done
}

# Waits until the guest has powered itself off. A guest that panics or hangs has failed, too.
end_guest() {
  local name=$1
  wait_console "$name" '^RESULT: '
  wait_exit "${guest_pids[$name]}" || fail "guest $name did not power off"
  wait "${guest_pids[$name]}" || fail "qemu failed under guest $name: $(<"$name.qemu.log")"
  guest_pids[$name]=
  # A serial line ends in CR LF.
  grep --quiet $'^RESULT: PASS\r*$' "$name.console.log" ||
    fail "guest $name failed: $(grep '^RESULT: ' "$name.console.log")"
}

# What a power cut leaves: the guest's memory is gone, with all that it had not yet written out.
cut_power() {
  kill -KILL "${guest_pids[$1]}"
  reap_killed "${guest_pids[$1]}"
  guest_pids[$1]=
}

boot() {
  start_guest "$@"
  end_guest "$1"
}

wait_exit() {
  local i
  for ((i = 0; i < 600; ++i)); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.05
  done
  return 1
}

# files_disk FILE NAME...: a raw disk that the guest reads with `tar xf /dev/vdX`. What the guest
# writes with `tar cf /dev/vdX` to a disk that is large enough, the host reads with `tar xf FILE`.
files_disk() {
  tar --create --file "$@"
  truncate --size %1M "$1" # a disk is whole sectors
}
