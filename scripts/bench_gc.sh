#!/usr/bin/env bash
# Measures what space reclaim costs and gives: random overwrites, with gc=on, gc=off and qcow2.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/bench_gc.sh [OPTION]...

Fills a disk, then overwrites it at random in blocks of 4 KiB, 16 requests in flight, a flush every
2000, and looks meanwhile at what the host holds for it: an append image with gc=on, one with gc=off
and a qcow2 file under qemu-nbd, taking turns, several rounds. Prints the medians of the rates, and
of what the host holds for each live byte: the most, and some seconds after the end. Build first
(scripts/test.sh does), and leave the machine alone meanwhile.

  --rounds N       rounds (3)
  --size BYTES     of the disk, all of it live (1G); K, M and G are understood
  --written BYTES  what is overwritten, altogether (10G)
  --directory DIR  where the files go (/var/tmp; gc=off takes both of the above)
  --plot FILE.svg  draws the first round: what is held for each live byte, over time; needs gnuplot
  --build DIR      the build folder (build/release)
  --help           this text
USAGE
}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=3 size=1G written=10G directory=/var/tmp plot='' build=$source_dir/build/release
while (($#)); do
  case $1 in
    --help | -h)
      usage
      exit 0
      ;;
    --rounds | --size | --written | --directory | --plot | --build)
      if (($# < 2)); then
        printf 'bench_gc.sh: %s needs a value\n' "$1" >&2
        exit 2
      fi
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    *)
      printf 'bench_gc.sh: unknown argument %s\n\n' "$1" >&2
      usage >&2
      exit 2
      ;;
  esac
done

needed=(nbdkit jq qemu-img qemu-nbd)
[[ -z $plot ]] || needed+=(gnuplot)
for program in "${needed[@]}"; do
  if ! command -v "$program" >/dev/null; then
    printf 'bench_gc.sh: there is no program %s\n' "$program" >&2
    exit 1
  fi
done
obd=$build/bin/obd load=$build/test/obd_load plugin=$build/lib/nbdkit-overlaybd-plugin.so
for file in "$obd" "$load" "$plugin"; do
  if [[ ! -e $file ]]; then
    printf 'bench_gc.sh: %s is missing: build first\n' "$file" >&2
    exit 1
  fi
done

bytes=$(numfmt --from=iec "$size")
requests=$(($(numfmt --from=iec "$written") / 4096))
settle=5 # seconds after the last write
tmp=$(mktemp --directory "$directory/obd-bench.XXXXXXXX")
server='' sampler=''
stop() {
  local pid
  for pid in $sampler $server; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
  done
  sampler='' server=''
  rm -rf "$tmp/disk" "$tmp/disk.qcow2" "$tmp/sock"
}
clean_up() {
  stop
  rm --recursive --force "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start DISK: makes it and serves it; sets `files`, what the host holds for it.
start() {
  if [[ $1 == qcow2 ]]; then
    files=("$tmp/disk.qcow2")
    qemu-img create -q -f qcow2 "${files[0]}" "$bytes"
    qemu-nbd --persistent --socket "$tmp/sock" --format qcow2 --cache writeback \
      --discard unmap "${files[0]}" &
  else
    "$obd" create "$tmp/disk" --type append --size "$bytes" >"$tmp/create.out"
    files=("$tmp/disk/writable_data" "$tmp/disk/writable_index")
    nbdkit --foreground --unix "$tmp/sock" "$plugin" "$tmp/disk/config.v1.json" "$1" &
  fi
  server=$!
  until [[ -S $tmp/sock ]]; do
    if ! kill -0 "$server" 2>/dev/null; then
      printf 'bench_gc.sh: the server of %s did not start\n' "$1" >&2
      exit 1
    fi
    sleep 0.02
  done
}

# What the host holds now, in bytes.
held() { stat --format '%b' "${files[@]}" | awk '{sum += $1} END {print sum * 512}'; }

# sample FILE: a line "seconds held" every half second, until it is killed.
sample() {
  local begin=$EPOCHREALTIME
  while true; do
    awk -v now="$EPOCHREALTIME" -v begin="$begin" -v held="$(held)" \
      'BEGIN {printf "%.1f %d\n", now - begin, held}' >>"$1"
    sleep 0.5
  done
}

disks=(gc=on gc=off qcow2)
uri="nbd+unix:///?socket=$tmp/sock"
for ((round = 1; round <= rounds; ++round)); do
  for disk in "${disks[@]}"; do
    [[ ! -t 2 ]] || printf '\rround %d of %d, %-6s' "$round" "$rounds" "$disk" >&2
    start "$disk"
    "$load" --once --sequential --mix 0,100,0 --block 1048576 --depth 4 "$uri" >"$tmp/fill"
    series=$tmp/$disk.$round
    sample "$series" &
    sampler=$!
    "$load" --mix 0,100,0 --flush-every 2000 --requests "$requests" --warm-up 0 --seed "$round" \
      --server-pid "$server" "$uri" >"$tmp/load"
    sleep "$settle"
    most=$(awk '$2 > most {most = $2} END {print most}' "$series")
    jq --compact-output --arg disk "$disk" --argjson most "$most" --argjson settled "$(held)" \
      --argjson live "$bytes" \
      '{disk: $disk, iops, p99: .latency_us.p99, cpu: .server_cpu_us_per_request,
        most: ($most / $live), settled: ($settled / $live)}' "$tmp/load" >>"$tmp/results"
    stop
  done
done
[[ ! -t 2 ]] || printf '\r%30s\r' '' >&2

printf 'medians of %s rounds; %s of 4 KiB overwrites at random in %s, in %s, %s CPUs\n\n' \
  "$rounds" "$written" "$size" "$directory" "$(nproc)"
printf '%-7s %10s %10s %9s %7s %12s %12s\n' disk requests/s 'to gc=off' 'p99 us' 'CPU us' \
  'most/live' 'then'
jq --slurp --raw-output '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor]
                     else (.[length / 2] + .[length / 2 - 1]) / 2 end;
  [group_by(.disk)[]
   | {disk: .[0].disk, iops: (map(.iops) | median), p99: (map(.p99) | median),
      cpu: (map(.cpu) | median), most: (map(.most) | median), settled: (map(.settled) | median)}]
  | . as $all
  | ($all[] | select(.disk == "gc=off")) as $off
  | ("gc=on", "gc=off", "qcow2") as $disk
  | $all[] | select(.disk == $disk)
  | [.disk, .iops, .iops / $off.iops, .p99, .cpu, .most, .settled] | @tsv' "$tmp/results" |
  awk -F '\t' '{printf "%-7s %10d %10.2f %9.0f %7.1f %12.2f %12.2f\n", $1, $2, $3, $4, $5, $6, $7}'

if [[ -n $plot ]]; then
  gnuplot <<PLOT
set terminal svg size 800,450 background "white"
set output "$plot"
set title "$written of 4 KiB overwrites at random in $size, all of it live"
set xlabel "seconds"
set ylabel "held by the host / live"
set yrange [0:*]
set key left top
set grid
plot "$tmp/gc=on.1" using 1:(\$2 / $bytes) with lines lw 2 title "append, gc=on", \
     "$tmp/gc=off.1" using 1:(\$2 / $bytes) with lines lw 2 title "append, gc=off", \
     "$tmp/qcow2.1" using 1:(\$2 / $bytes) with lines lw 2 title "qcow2"
PLOT
fi
