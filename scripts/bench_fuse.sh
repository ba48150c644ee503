#!/usr/bin/env bash
# Measures a loop device over obd-fuse beside one over nbdfuse, in one run and taking turns.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/bench_fuse.sh [OPTION]...

Serves a disk by nbdkit, from memory and as an append image, shows it as a file by nbdfuse and by
obd-fuse in turn, makes that file a block device by a loop device with direct I/O, and lets fio read
and write it at random in blocks of 4 KiB, and in order in blocks of 1 MiB. Prints the medians over the rounds, the ratio to
nbdfuse, and the CPU time of the FUSE process per request. Needs root and /dev/fuse. Build first
(scripts/test.sh does), and leave the machine alone meanwhile: rates drift, ratios less so.

  --rounds N       rounds (5)
  --seconds S      how long each measurement takes (2)
  --size BYTES     of the disk (512M); K, M and G are understood
  --depth N        requests in flight (16)
  --connections N  of obd-fuse (its default)
  --directory DIR  where the files go (/dev/shm; up to about 8 times the size is needed)
  --build DIR      the build folder (build/release)
  --help           this text
USAGE
}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=5 seconds=2 size=512M depth=16 connections='' directory=/dev/shm
build=$source_dir/build/release
while (($#)); do
  case $1 in
    --help | -h)
      usage
      exit 0
      ;;
    --rounds | --seconds | --size | --depth | --connections | --directory | --build)
      if (($# < 2)); then
        printf 'bench_fuse.sh: %s needs a value\n' "$1" >&2
        exit 2
      fi
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    *)
      printf 'bench_fuse.sh: unknown argument %s\n\n' "$1" >&2
      usage >&2
      exit 2
      ;;
  esac
done

for program in nbdkit nbdfuse fio jq losetup; do
  if ! command -v "$program" >/dev/null; then
    printf 'bench_fuse.sh: there is no program %s: scripts/setup.sh --dev installs it\n' \
      "$program" >&2
    exit 1
  fi
done
obd=$build/bin/obd obd_fuse=$build/bin/obd-fuse plugin=$build/lib/nbdkit-overlaybd-plugin.so
for file in "$obd" "$obd_fuse" "$plugin"; do
  if [[ ! -e $file ]]; then
    printf 'bench_fuse.sh: %s is missing: build first\n' "$file" >&2
    exit 1
  fi
done

bytes=$(numfmt --from=iec "$size")
tmp=$(mktemp --directory "$directory/obd-bench.XXXXXXXX")
server='' front='' loop=''

# Whatever there is, the last one first.
take_down() {
  if [[ -n $loop ]]; then
    losetup --detach "$loop" || true
    loop=
  fi
  if [[ -n $front ]]; then
    # A process of the system may look at a device that has just changed.
    for ((i = 0; i < 200; ++i)); do
      umount "$tmp/mnt" 2>/dev/null && break
      sleep 0.02
    done
    wait "$front" || true
    front=
  fi
  if [[ -n $server ]]; then
    kill "$server" 2>/dev/null || true
    wait "$server" || true
    server=
  fi
  (cd "$tmp" && rm -rf disk sock pid mnt)
}
clean_up() {
  take_down
  rm --recursive --force "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_until PID COMMAND...
wait_until() {
  local pid=$1
  shift
  until "$@" 2>/dev/null; do
    if ! kill -0 "$pid" 2>/dev/null; then
      printf 'bench_fuse.sh: a program ended before %s\n' "$*" >&2
      exit 1
    fi
    sleep 0.02
  done
}

# set_up DISK FRONT: sets $loop.
set_up() {
  local arguments file=$tmp/mnt
  if [[ $1 == memory ]]; then
    arguments=(memory "$bytes")
  else
    "$obd" create "$tmp/disk" --size "$bytes" >"$tmp/create.out"
    arguments=("$plugin" "$tmp/disk/config.v1.json")
  fi
  nbdkit --foreground --pidfile "$tmp/pid" --unix "$tmp/sock" "${arguments[@]}" &
  server=$!
  wait_until "$server" test -s "$tmp/pid"
  : >"$tmp/mnt"
  if [[ $2 == nbdfuse ]]; then
    nbdfuse "$tmp/mnt" --unix "$tmp/sock" &
  else
    "$obd_fuse" ${connections:+--connections "$connections"} --socket "$tmp/sock" "$tmp/mnt" &
  fi
  front=$!
  wait_until "$front" test -s "$file"
  loop=$(losetup --find --show --direct-io=on "$file")
}

# The user and system time of the FUSE process, in clock ticks.
cpu_ticks() { awk '{print $14 + $15}' "/proc/$front/stat"; }

# measure DISK FRONT NAME FIO-OPTION...: adds one line to the results.
measure() {
  local disk=$1 name=$2 load=$3 before after
  shift 3
  before=$(cpu_ticks)
  fio --name=bench --filename="$loop" --direct=1 --ioengine=libaio --iodepth="$depth" \
    --output-format=json "$@" >"$tmp/fio.json"
  after=$(cpu_ticks)
  jq --compact-output --arg disk "$disk" --arg front "$name" --arg load "$load" \
    --argjson ticks $((after - before)) --argjson hertz "$(getconf CLK_TCK)" \
    '.jobs[0] | (.read.total_ios + .write.total_ios) as $count
     | {disk: $disk, front: $front, load: $load, iops: (.read.iops + .write.iops),
        mb_per_s: ((.read.bw_bytes + .write.bw_bytes) / 1e6),
        cpu: ($ticks * 1e6 / $hertz / $count)}' "$tmp/fio.json" >>"$tmp/results"
}

timed=(--time_based --runtime="$seconds")
for ((round = 1; round <= rounds; ++round)); do
  for disk in memory image; do
    for name in nbdfuse obd-fuse; do
      [[ ! -t 2 ]] || printf '\rround %d of %d, %-7s %-9s' "$round" "$rounds" "$disk" "$name" >&2
      set_up "$disk" "$name"
      measure "$disk" "$name" 'fill 1 MiB' --rw=write --bs=1M
      measure "$disk" "$name" 'read 1 MiB' --rw=read --bs=1M "${timed[@]}"
      measure "$disk" "$name" 'write 4 KiB' --rw=randwrite --bs=4k "${timed[@]}"
      measure "$disk" "$name" 'read 4 KiB' --rw=randread --bs=4k "${timed[@]}"
      take_down
    done
  done
done
[[ ! -t 2 ]] || printf '\r%40s\r' '' >&2

printf 'medians of %s rounds of %s s, disk of %s in %s, depth %s, %s CPUs\n\n' \
  "$rounds" "$seconds" "$size" "$directory" "$depth" "$(nproc)"
printf '%-7s %-12s %-9s %10s %8s %11s %7s\n' disk load front requests/s MB/s 'to nbdfuse' 'CPU us'
jq --slurp --raw-output '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor]
                     else (.[length / 2] + .[length / 2 - 1]) / 2 end;
  [group_by([.disk, .load, .front])[]
   | {disk: .[0].disk, load: .[0].load, front: .[0].front, iops: (map(.iops) | median),
      mb: (map(.mb_per_s) | median), cpu: (map(.cpu) | median)}]
  | . as $all
  | ("memory", "image") as $disk
  | ("read 4 KiB", "write 4 KiB", "read 1 MiB", "fill 1 MiB") as $load
  | ("nbdfuse", "obd-fuse") as $front
  | ($all[] | select(.disk == $disk and .load == $load and .front == "nbdfuse")) as $peer
  | $all[] | select(.disk == $disk and .load == $load and .front == $front)
  | [.disk, .load, .front, .iops, .mb, .iops / $peer.iops, .cpu] | @tsv
' "$tmp/results" | while IFS=$'\t' read -r disk load front_name iops mb ratio cpu; do
  printf '%-7s %-12s %-9s %10.0f %8.0f %11.2f %7.1f\n' \
    "$disk" "$load" "$front_name" "$iops" "$mb" "$ratio" "$cpu"
done
