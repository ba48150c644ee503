#!/usr/bin/env bash
# scripts/bench.sh: measures a little of everything, tells it in all its forms, leaves nothing behind.
. "$(dirname "$0")/functions.sh"
bench=$source_dir/scripts/bench.sh
requires_command python3 qemu-nbd gnuplot
[[ -x $programs/obd_bench_layers ]] || skip "$programs/obd_bench_layers is not built"

mkdir fast durable
expect_nothing_left() {
  local left
  left=$(find fast durable -mindepth 1)
  [[ -z $left ]] || fail "there are files left: $left"
  ! pgrep --full -- "$tmp/(fast|durable)" >/dev/null || fail 'there are servers left'
}
short=(--quick --rounds 1 --seconds 0.05 --size 16M --directory fast --flush-directory durable
  --build "$OBD_BUILD_DIR")

# Wrong command lines: one sentence, before anything is done.
expect_wrong() {
  local pattern=$1
  shift
  expect_fail 2 "^bench.sh: .*$pattern" "$bench" "$@"
  (($(wc -l <<<"$said") == 1)) || fail "more than a sentence: $said"
}
expect_wrong '--sice' --sice 1G
expect_wrong '--size: 1X is not a size' --size 1X
expect_wrong '--rounds: 0 is not' --rounds 0
expect_wrong '--seconds: expected' --seconds
expect_wrong 'not a regular expression' --only '('
expect_wrong 'no load has a key with write-only in it' --only write-only
expect_wrong '--docs puts a whole run' --quick --docs
expect_wrong '/nowhere is not a folder' --directory /nowhere
expect_fail 1 '^bench.sh: .*obd is missing: build first' "$bench" --build "$tmp"
printf 'no place for tables\n' >plain.md
expect_fail 1 '^bench.sh: plain.md: needs the line' "$bench" "${short[@]}" --docs plain.md
expect_nothing_left

# A document of ours keeps what is not between the marks.
printf '%s\n' before '<!-- bench: begin -->' old '<!-- bench: end -->' after >performance.md
"$bench" "${short[@]}" --only '^(read|overwrite|first-write|seq-.*|flush-each|open)$' \
  --json results.json --docs performance.md >tables.txt
expect_nothing_left
for words in 'nbdkit file' 'qcow2 over 32' 'append over 255' 'syncs per flush' 'not measured: '; do
  grep --quiet "$words" tables.txt || fail "the tables do not tell of '$words'"
done
expect_json results.json '.rounds == 1' '[.medians[] | select(.load == "read")] | length >= 5' \
  '[.results[] | select(.load == "first-write") | .server_cpu_us_per_request > 0] | all' \
  '[.results[] | select(.load == "open") | .first_read_ms > 0] | all' \
  '[.targets[] | select(.load == "read") | .met != null] | length == 3 and all' \
  '[.targets[] | select(.load == "flush-32") | .met == null] | all'
[[ $(head -n 1 performance.md) == before && $(tail -n 1 performance.md) == after ]] ||
  fail 'the text around the tables is gone'
grep --quiet '^| 4 KiB random overwrite' performance.md || fail 'the document has no tables'
! grep --quiet '^old$' performance.md || fail 'the old tables are still there'
for plot in performance-cpu.svg performance-depth.svg; do
  grep --quiet '</svg>' "$plot" || fail "$plot is no picture"
  grep --quiet "($plot)" performance.md || fail "$plot is not shown"
done

# Ended in the middle.
for signal in INT TERM; do
  "$bench" "${short[@]}" --only '^overwrite$' --seconds 60 >interrupted.txt 2>&1 &
  bench_pid=$!
  cleanup_fn stop_pid "$bench_pid"
  wait_until "$bench_pid" pgrep --full "obd_load .*$tmp/fast/.*/socket" || fail "$(<interrupted.txt)"
  kill -s "$signal" "$bench_pid"
  status=0
  wait "$bench_pid" || status=$?
  ((status == 128 + $(kill -l "$signal"))) || fail "SIG$signal ended it with status $status"
  expect_nothing_left
done
