#!/usr/bin/env bash
# obd-mount with the kernel's nbd, in a guest: dev and dir, a server that dies ten times under load,
# a supervisor that dies, and devices that come and go without a trace.

rounds=${OBD_ATTACH_ROUNDS:-5}
# shellcheck disable=SC2034
time_limit=$((200 + 4 * rounds))
. "$(dirname "$0")/guest.sh"
requires_command mkfs.ext4 e2fsck jq
guest_seconds=$((guest_seconds + 2 * rounds))

for program in mkfs.ext4 e2fsck fstrim jq; do
  image_programs+=("$(command -v "$program")")
done
make_initramfs attach_nbd --module 'nbd nbds_max=2' "${image_programs[@]}" \
  "$OBD_BUILD_DIR/bin/obd-mount" <<'GUEST'
say() { printf '[%s] %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*"; }
die() { say "FAILED: $*"; obd-mount list; cat /run/obd/*/*.log; dmesg | tail -n 20; exit 1; }
attach_options="--backend nbd --plugin $plugin --connections 2 --request-timeout $timeout"
pid_of() { cut -d' ' -f1 /run/obd/*/"$1.pid"; }
nothing_left() {
  [ -z "$(ls /run/obd)" ] || die "left in the state: $(ls /run/obd/*)"
  [ -z "$(ls -d /sys/block/nbd*/pid 2>/dev/null)" ] || die 'a device is left'
  # Ended processes are init's to wait for, and this init does not.
  ! ps -o stat,args | grep -v '^Z' | grep -E '[n]bdkit|obd-[m]ount' || die 'a process is left'
  ! ps -o stat | grep '^D' || die 'a process hangs'
}
# kill_server: and waits for the next one.
kill_server() {
  server=$(pid_of server)
  kill -9 "$server"
  i=0
  while [ "$server" = "$(pid_of server)" ] || [ ! -e /run/obd/*/server.ready ]; do
    i=$((i + 1))
    [ $i -lt 300 ] || die 'the server does not come back'
    sleep 0.1
  done
}

obd create /tmp/disk --type $type --size 128M

say 'dev'
device=$(obd-mount dev /tmp/disk $attach_options)
[ "$(blockdev --getsize64 "$device")" = 134217728 ] || die 'size'
[ "$(obd-mount dev /tmp/disk $attach_options)" = "$device" ] || die 'another device'
other=$(obd-mount dev /tmp/disk $attach_options --mkfs ext4 --json)
[ "$other" = "[{\"type\":\"ext4\",\"source\":\"$device\",\"options\":[\"rw\",\"discard\"]}]" ] || die "$other"
mount -t ext4 -o rw,discard,errors=panic "$device" /mnt
status=0; obd-mount umount "$device" || status=$?
[ $status = 5 ] || die "umount of a mounted device ended with $status"

say 'a server that dies ten times'
(
  i=0
  while [ $i -lt 40 ]; do
    dd if=/dev/urandom of=/mnt/file$i bs=64k count=4 conv=fsync 2>/dev/null || echo "$i" >>/tmp/failed
    i=$((i + 1))
  done
  cd /mnt && sha256sum file* >/tmp/sums
  echo done >/tmp/written
) &
for round in 1 2 3 4 5 6 7 8 9 10; do
  sleep 0.2
  kill_server
done
i=0
while [ ! -e /tmp/written ]; do
  i=$((i + 1))
  [ $i -lt 600 ] || die 'the writer hangs'
  sleep 0.1
done
[ ! -e /tmp/failed ] || die "writes failed: $(cat /tmp/failed)"

say 'a supervisor that dies'
kill -9 "$(pid_of supervisor)"
sleep 0.1
kill_server_alone=$(pid_of server)
kill -9 "$kill_server_alone"
obd-mount recover
# At some moment between the death of a server and the kernel's use of the next. Requests on their
# way then are sent again after the request timeout; without one it takes the kernel 30 seconds, for
# which once above is enough.
pauses='0.1 0.5'
[ $timeout != 0 ] || pauses=0.1
for pause in $pauses; do
  echo $pause >/mnt/pause
  sync
  kill -9 "$(pid_of server)"
  sleep $pause
  kill -9 "$(pid_of supervisor)"
  obd-mount recover
done
echo back >/mnt/back
sync

say 'unmount and look'
umount /mnt
e2fsck -fn "$device" >/tmp/fsck || die "$(cat /tmp/fsck)"
obd-mount umount "$device"
nothing_left
! dmesg | grep -i 'i/o error\|buffer error' || die 'the kernel saw errors'

say 'dir'
obd-mount dir /tmp/disk /mnt $attach_options
(cd /mnt && sha256sum -s -c /tmp/sums) || die 'files'
[ "$(cat /mnt/back)" = back ] || die 'a file is lost'
before=$(obd info -U --json /tmp/disk | jq '.layers[-1].live_bytes')
rm /mnt/file*
sync
fstrim /mnt
after=$(obd info -U --json /tmp/disk | jq '.layers[-1].live_bytes')
[ $after -lt $((before - 4000000)) ] || die "fstrim: $before, then $after"
obd-mount umount /mnt
nothing_left

say "$rounds rounds"
i=0
while [ $i -lt $rounds ]; do
  device=$(obd-mount dev /tmp/disk $attach_options)
  obd-mount umount "$device"
  i=$((i + 1))
done
nothing_left

say 'a server that hangs, taken away by force'
device=$(obd-mount dev /tmp/disk $attach_options)
kill -STOP "$(pid_of server)"
obd-mount umount --force "$device"
nothing_left
obd check /tmp/disk
tar cf /dev/vda -C /tmp disk
GUEST

# With and without a time after which nbd takes a request for lost.
for type in append sparse; do
  timeout=0
  [[ $type == append ]] || timeout=5
  truncate --size 160M out.tar
  boot attach_nbd --raw out.tar \
    --append "plugin=$guest_plugin type=$type rounds=$rounds timeout=$timeout"
  tar xf out.tar
  obd check disk
  rm -r disk out.tar
done
