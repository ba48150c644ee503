#!/usr/bin/env bash
# Measures compressed layers: writing and verifying them beside zstd's and lz4's own programs, and
# random reads through them beside a raw layer, in one run and taking turns.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/bench_blobs.sh [OPTION]...

The disk's content is a tar file of a folder, cut off or followed by zeros at the size. An image has
all of it in its writable layer. In each round that layer is committed and the outcome verified
(every block read, its checksum checked, decompressed); zstd and lz4 compress and test the same
bytes. Then layers are served by nbdkit and read at random in blocks of 4 KiB, with all that is read
in the cache, and without a cache. Prints medians over the rounds, and ratios to the line that each
group begins with. Build first (scripts/test.sh does), and leave the machine alone meanwhile: rates
drift, ratios and CPU time less so.

  --rounds N       rounds (5)
  --seconds S      how long each measurement of reads takes (2)
  --size BYTES     of the disk (512M); K, M and G are understood
  --content DIR    the folder that the content is made of (/usr)
  --directory DIR  where the files go (/dev/shm; about 5 times the size is needed)
  --build DIR      the build folder (build/release)
  --help           this text
USAGE
}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=5 seconds=2 size=512M content=/usr directory=/dev/shm build=$source_dir/build/release
while (($#)); do
  case $1 in
    --help | -h)
      usage
      exit 0
      ;;
    --rounds | --seconds | --size | --content | --directory | --build)
      if (($# < 2)); then
        printf 'bench_blobs.sh: %s needs a value\n' "$1" >&2
        exit 2
      fi
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    *)
      printf 'bench_blobs.sh: unknown argument %s\n\n' "$1" >&2
      usage >&2
      exit 2
      ;;
  esac
done

for program in nbdkit nbdcopy jq zstd lz4; do
  if ! command -v "$program" >/dev/null; then
    printf 'bench_blobs.sh: there is no program %s: scripts/setup.sh --dev installs it\n' \
      "$program" >&2
    exit 1
  fi
done
obd=$build/bin/obd zfile=$build/bin/overlaybd-zfile load=$build/test/obd_load
plugin=$build/lib/nbdkit-overlaybd-plugin.so
for file in "$obd" "$zfile" "$load" "$plugin"; do
  if [[ ! -e $file ]]; then
    printf 'bench_blobs.sh: %s is missing: build first\n' "$file" >&2
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
cd "$tmp"

progress() { [[ ! -t 2 ]] || printf '\r%-60s' "$1" >&2; }

# --- compressing and verifying ---

# run GROUP NAME COMMAND...: adds a line with the rate and the CPU time to the results.
run() {
  local group=$1 name=$2 real cpu
  shift 2
  progress "round $round of $rounds: $name"
  local TIMEFORMAT='%R %U %S'
  { time "$@" >command.out 2>&1; } 2>spent || {
    cat command.out >&2
    exit 1
  }
  read -r real cpu < <(awk '{print $1, $2 + $3}' spent)
  jq --null-input --compact-output --arg group "$group" --arg name "$name" \
    --argjson bytes "$bytes" --argjson real "$real" --argjson cpu "$cpu" \
    '{group: $group, name: $name, rate: ($bytes / $real / 1e6), cpu: ($cpu / $bytes * 1e9)}' \
    >>results
}

# run_zstd_blocks SIZE: zstd in blocks that know nothing of each other, as a ZFile's, exists only as
# its benchmark: in memory, one thread, no checksums, no files. It tells no CPU time.
run_zstd_blocks() {
  local name="zstd -b3 -B$1" rate='([0-9.]+) MB/s, *([0-9.]+) MB/s'
  progress "round $round of $rounds: $name"
  zstd -b3 -i1 "-B$1" disk.raw 2>&1 | tr '\r' '\n' | grep --extended-regexp "$rate" |
    tail -n 1 >command.out
  [[ $(<command.out) =~ $rate ]]
  jq --null-input --compact-output --arg name "$name" --argjson write "${BASH_REMATCH[1]}" \
    --argjson read "${BASH_REMATCH[2]}" \
    '{group: "zstd 3, 1 thread", name: $name, rate: $write},
     {group: "verify zstd", name: $name, rate: $read}' >>results
}

commit() {
  local group=$1 output=$2
  shift 2
  run "$group" "${*#--}" "$obd" commit disk --output "$output" --force --json "$@"
}

measure_blobs() {
  run 'zstd 3, 2 threads' 'zstd -T2 -3' zstd --quiet --force -T2 -3 disk.raw -o disk.zst
  commit 'zstd 3, 2 threads' zstd.64k --compress zstd:3 --block-size 64K --threads 2
  run 'verify zstd' 'zstd --test' zstd --quiet --test disk.zst
  run_zstd_blocks 64K
  commit 'zstd 3, 1 thread' zstd.64k --compress zstd:3 --block-size 64K --threads 1
  run 'verify zstd' 'zstd 64K' "$zfile" --verify zstd.64k
  run_zstd_blocks 4K
  commit 'zstd 3, 1 thread' zstd.4k --compress zstd:3 --block-size 4K --threads 1
  run 'verify zstd' 'zstd 4K' "$zfile" --verify zstd.4k

  run 'lz4, 1 thread' 'lz4 -1 -B4' lz4 --quiet --force -1 -B4 disk.raw disk.lz4
  run 'verify lz4' 'lz4 --test' lz4 --quiet --test disk.lz4
  commit 'lz4, 1 thread' lz4.64k --compress lz4 --block-size 64K --threads 1
  run 'verify lz4' 'lz4 64K' "$zfile" --verify lz4.64k
  commit 'lz4, 1 thread' lz4.4k --compress lz4 --block-size 4K --threads 1
  commit 'lz4, 1 thread' lz4.4k --compress lz4 --block-size 4K --threads 2
  run 'verify lz4' 'lz4 4K' "$zfile" --verify lz4.4k
}

# --- reading ---

# What is read at random: fits into the default cache.
span=$((32 << 20))

start() {
  rm -f pid
  nbdkit --foreground --pidfile "$tmp/pid" --unix "$tmp/sock" "$plugin" "$@" &
  server=$!
  until [[ -s pid ]]; do
    if ! kill -0 "$server" 2>/dev/null; then
      printf 'bench_blobs.sh: nbdkit %s did not start\n' "$*" >&2
      exit 1
    fi
    sleep 0.02
  done
}

stop() {
  kill "$server"
  wait "$server"
  server=
  rm -f sock
}

# reads GROUP LAYER PLUGIN-ARGUMENT...
reads() {
  local group=$1 layer=$2 uri="nbd+unix:///?socket=$tmp/sock"
  shift 2
  progress "round $round of $rounds: $group, $layer"
  start "$layer.json" "$@"
  # Each block once, which is what fills the cache.
  "$load" --span "$span" --once --sequential "$uri" >command.out
  "$load" --span "$span" --seconds "$seconds" --seed "$round" --server-pid "$server" "$uri" |
    jq --compact-output --arg group "$group" --arg name "$layer" \
      '{group: $group, name: $name, rate: .iops, cpu: .server_cpu_us_per_request}' >>results
  stop
}

measure_reads() {
  reads 'read, cached' raw
  reads 'read, cached' zstd.64k
  reads 'read, cached' lz4.4k
  reads 'read, no cache' raw cache-size=0
  reads 'read, no cache' zstd.64k cache-size=0
  reads 'read, no cache' lz4.4k cache-size=0
}

# --- the run ---

progress 'making the disk'
{ tar --create --file - "$content" 2>/dev/null || true; } | head --bytes "$bytes" >disk.raw
truncate --size "$bytes" disk.raw
"$obd" create disk --size "$bytes" >command.out
start disk/config.v1.json
nbdcopy disk.raw "nbd+unix:///?socket=$tmp/sock"
stop
"$obd" commit disk --output raw --json >command.out
for layer in raw zstd.64k lz4.4k; do
  printf '{"lowers": [{"file": "%s"}]}' "$tmp/$layer" >$layer.json
done
for ((round = 1; round <= rounds; ++round)); do
  measure_blobs
  measure_reads
done
progress ''
[[ ! -t 2 ]] || printf '\r' >&2

printf 'medians of %s rounds, disk of %s (tar of %s) in %s, %s CPUs\n' "$rounds" "$size" \
  "$content" "$directory" "$(nproc)"
printf 'layers: '
for layer in disk.raw disk.zst zstd.64k zstd.4k disk.lz4 lz4.64k lz4.4k; do
  printf '%s %s MB  ' "$layer" $(($(stat --format=%s "$layer") / 1000000))
done
printf '\n\n%-18s %-44s %12s %8s %10s %8s\n' '' '' 'MB/s or' 'to' 'ns a byte' 'to'
printf '%-18s %-44s %12s %8s %10s %8s\n' '' '' 'requests/s' 'first' 'or us CPU' 'first'
jq --slurp --raw-output '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor]
                     else (.[length / 2] + .[length / 2 - 1]) / 2 end;
  . as $all
  | reduce .[] as $line ([]; if any(.[]; .group == $line.group and .name == $line.name) then .
                             else . + [{group: $line.group, name: $line.name}] end)
  | . as $keys
  | (reduce $keys[].group as $group ([]; if index($group) then . else . + [$group] end))[] as $group
  | [$keys[] | select(.group == $group)]
  | map(. as $key | $all | map(select(.group == $key.group and .name == $key.name))
        | $key + {rate: (map(.rate) | median), cpu: (map(.cpu) | median)})
  | .[0] as $first
  | .[] | [.group, .name, .rate, .rate / $first.rate, .cpu // "-",
           (if .cpu and $first.cpu then .cpu / $first.cpu else "-" end)] | @tsv
' results |
  while IFS=$'\t' read -r group name rate ratio cpu cpu_ratio; do
    [[ $cpu == - ]] || printf -v cpu '%.2f' "$cpu"
    [[ $cpu_ratio == - ]] || printf -v cpu_ratio '%.2f' "$cpu_ratio"
    printf '%-18s %-44s %12.0f %8.2f %10s %8s\n' "$group" "$name" "$rate" "$ratio" "$cpu" \
      "$cpu_ratio"
  done
