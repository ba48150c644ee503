#!/usr/bin/env bash
# Measures the server beside nbdkit's file plugin on a raw file, in one run and taking turns.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/bench.sh [OPTION]...

Serves a raw file by nbdkit's file plugin, an append image and a sparse image, one after the other,
several rounds. In each round every disk is made anew, filled, overwritten at random in blocks of
4 KiB, then read at random, 16 requests in flight. Prints the medians over the rounds, their ratio
to the file plugin's, and the server's CPU time per request. Build first (scripts/test.sh does), and
leave the machine alone meanwhile: rates drift, ratios and CPU time less so.

  --rounds N       rounds (5)
  --seconds S      how long each measurement takes (2)
  --size BYTES     of the disk (512M); K, M and G are understood
  --depth N        requests in flight (16)
  --connections N  over so many connections (1)
  --directory DIR  where the files go (/dev/shm; up to about 4 times the size is needed)
  --build DIR      the build folder (build/release)
  --help           this text
USAGE
}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=5 seconds=2 size=512M depth=16 connections=1 directory=/dev/shm
build=$source_dir/build/release
while (($#)); do
  case $1 in
    --help | -h)
      usage
      exit 0
      ;;
    --rounds | --seconds | --size | --depth | --connections | --directory | --build)
      if (($# < 2)); then
        printf 'bench.sh: %s needs a value\n' "$1" >&2
        exit 2
      fi
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    *)
      printf 'bench.sh: unknown argument %s\n\n' "$1" >&2
      usage >&2
      exit 2
      ;;
  esac
done

for program in nbdkit jq; do
  if ! command -v "$program" >/dev/null; then
    printf 'bench.sh: there is no program %s: scripts/setup.sh --dev installs it\n' $program >&2
    exit 1
  fi
done
obd=$build/bin/obd load=$build/test/obd_load plugin=$build/lib/nbdkit-overlaybd-plugin.so
for file in "$obd" "$load" "$plugin"; do
  if [[ ! -e $file ]]; then
    printf 'bench.sh: %s is missing: build first\n' "$file" >&2
    exit 1
  fi
done

bytes=$(numfmt --from=iec "$size")
tmp=$(mktemp --directory "$directory/obd-bench.XXXXXXXX")
server=
clean_up() {
  if [[ -n $server ]]; then
    kill "$server" 2>/dev/null || true
    wait "$server" || true
  fi
  rm --recursive --force "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start DISK: makes it and serves it.
start() {
  local arguments
  case $1 in
    file)
      truncate --size "$bytes" "$tmp/disk.raw"
      arguments=(file "$tmp/disk.raw")
      ;;
    *)
      "$obd" create "$tmp/disk" --type "$1" --size "$bytes" >"$tmp/create.out"
      arguments=("$plugin" "$tmp/disk/config.v1.json")
      ;;
  esac
  rm -f "$tmp/pid"
  nbdkit --foreground --pidfile "$tmp/pid" --unix "$tmp/sock" "${arguments[@]}" &
  server=$!
  until [[ -s $tmp/pid ]]; do
    if ! kill -0 "$server" 2>/dev/null; then
      printf 'bench.sh: nbdkit %s did not start\n' "${arguments[*]}" >&2
      exit 1
    fi
    sleep 0.02
  done
}

stop() {
  kill "$server"
  wait "$server"
  server=
  rm -rf "$tmp/disk" "$tmp/disk.raw" "$tmp/sock"
}

# measure DISK LOAD OPTION...: adds one line to the results.
measure() {
  local disk=$1 name=$2
  shift 2
  "$load" --server-pid "$server" "$@" "nbd+unix:///?socket=$tmp/sock" |
    jq --compact-output --arg disk "$disk" --arg load "$name" \
      '{disk: $disk, load: $load, iops, mb_per_s, cpu: .server_cpu_us_per_request,
        p99: .latency_us.p99}' >>"$tmp/results"
}

common=(--connections "$connections" --depth "$depth" --seconds "$seconds")
for ((round = 1; round <= rounds; ++round)); do
  for disk in file append sparse; do
    [[ ! -t 2 ]] || printf '\rround %d of %d, %-7s' "$round" "$rounds" "$disk" >&2
    start "$disk"
    measure "$disk" 'fill 1 MiB' --once --sequential --mix 0,100,0 --block 1048576 --depth 4
    measure "$disk" 'write 4 KiB' "${common[@]}" --mix 0,100,0 --seed "$round"
    measure "$disk" 'read 4 KiB' "${common[@]}" --mix 100,0,0 --seed "$round"
    stop
  done
done
[[ ! -t 2 ]] || printf '\r%30s\r' '' >&2

printf 'medians of %s rounds of %s s, disk of %s in %s, depth %s, %s connection(s), %s CPUs\n\n' \
  "$rounds" "$seconds" "$size" "$directory" "$depth" "$connections" "$(nproc)"
printf '%-12s %-7s %10s %8s %9s %7s %9s %7s\n' load disk requests/s MB/s 'to file' 'p99 us' \
  'CPU us' 'to file'
jq --slurp --raw-output '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor]
                     else (.[length / 2] + .[length / 2 - 1]) / 2 end;
  [group_by([.load, .disk])[]
   | {load: .[0].load, disk: .[0].disk, iops: (map(.iops) | median), mb: (map(.mb_per_s) | median),
      p99: (map(.p99) | median), cpu: (map(.cpu) | median)}]
  | . as $all
  | ("fill 1 MiB", "write 4 KiB", "read 4 KiB") as $load
  | ("file", "append", "sparse") as $disk
  | ($all[] | select(.load == $load and .disk == "file")) as $file
  | $all[] | select(.load == $load and .disk == $disk)
  | [.load, .disk, .iops, .mb, .iops / $file.iops, .p99, .cpu, .cpu / $file.cpu] | @tsv
' "$tmp/results" |
  while IFS=$'\t' read -r name disk iops mb ratio p99 cpu cpu_ratio; do
    printf '%-12s %-7s %10.0f %8.0f %8.2fx %7.0f %9.2f %6.2fx\n' "$name" "$disk" "$iops" "$mb" \
      "$ratio" "$p99" "$cpu" "$cpu_ratio"
  done
