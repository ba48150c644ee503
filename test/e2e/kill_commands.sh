#!/usr/bin/env bash
# A command that makes or changes something is killed at a random moment: what it read is whole,
# what it makes is whole or not there under its name, what it changes in place holds the same disk,
# and the same command then does its work.
# Environment: OBD_KILL_SECONDS (15), how long to go on; OBD_SEED repeats a run.
seconds=${OBD_KILL_SECONDS:-15}
# shellcheck disable=SC2034
time_limit=$((seconds + 185))
. "$(dirname "$0")/functions.sh"
requires_command strace
# What changes files. A kill comes before one of these calls, or at any time.
calls='pwrite64,ftruncate,fallocate,fsync,fdatasync,renameat2'
calls+=',?rename,?renameat,?link,?linkat,?unlink,?unlinkat,?mkdir,?mkdirat'
strace -qq -o strace.out -e trace="$calls" true || skip 'strace is not allowed to trace'

seed=${OBD_SEED:-$((RANDOM * 100 + 1))}
echo "seed $seed (OBD_SEED=$seed repeats this run)"
RANDOM=$seed
size=$((4 << 20))

operations=(import commit commit_lz4 commit_zstd commit_tar merge replace compact grow shrink clone
  seal export convert)

# sum_of IMAGE|LAYER: of the disk's content.
sum_of() {
  obd export "$1" -o sum.raw --force >/dev/null
  sha256sum <sum.raw
}

expect_sum() {
  [[ $(sum_of "$1") == "$2" ]] || fail "$what: $1 holds another disk"
}

expect_checked() {
  obd check "$1" >check.log 2>&1 || fail "$what: obd check $1 finds something"
}

# --- images with something in every layer, and dead space in the upper ---

random_raw random 768K
truncate -s $size disk.raw
patch disk.raw $((256 << 10)) random
seq 100000 >text
truncate -s 512K text
patch disk.raw $((2 << 20)) text
disk_sum=$(sha256sum <disk.raw)
obd import disk.raw -o base.lsmt >/dev/null
obd create middle --lower base.lsmt >/dev/null
serve middle
qemu_io "$uri" 'write -P 3 512k 256k' 'discard 2200k 128k' 'write -P 4 3M 256k'
stop_nbdkit
obd seal middle >/dev/null
declare -A sums grown_sums
for type in append sparse; do
  obd create template.$type --type $type --from middle >/dev/null
  serve template.$type
  qemu_io "$uri" 'write -s random 1M 768k' 'write -s text 3300k 512k' \
    'write -s random 1280k 768k' 'discard 256k 75k' 'write -z 2304k 64k' 'write -P 7 4608 512' \
    'write -P 0 3500k 64k'
  stop_nbdkit
  sums[$type]=$(sum_of template.$type)
  truncate -s $((size + (1 << 20))) sum.raw
  grown_sums[$type]=$(sha256sum <sum.raw)
done
fingerprint base.lsmt middle >inputs

# --- what each operation runs, and what has to be true after a kill ---

# Sets `arguments`; the image is in disk/.
prepare() {
  rm -rf disk disk.size copy new.lsmt* out.raw*
  cp -a template."$type" disk
  case $operation in
    import) arguments=(import disk.raw -o new.lsmt --compress zstd --tar) ;;
    commit) arguments=(commit disk -o new.lsmt) ;;
    commit_lz4) arguments=(commit disk -o new.lsmt --compress lz4) ;;
    commit_zstd) arguments=(commit disk -o new.lsmt --compress zstd --block-size 64K) ;;
    commit_tar) arguments=(commit disk -o new.lsmt --tar) ;;
    merge) arguments=(merge disk -o new.lsmt --compress lz4) ;;
    replace) arguments=(merge disk --range 0..1 --replace -o disk/merged.lsmt --force) ;;
    compact) arguments=(compact disk) ;;
    grow) arguments=(resize disk $((size + (1 << 20)))) ;;
    shrink)
      obd resize disk +1M >/dev/null
      arguments=(resize disk "$size" --force)
      ;;
    clone) arguments=(clone disk copy) ;;
    seal) arguments=(seal disk) ;;
    export) arguments=(export disk -o out.raw) ;;
    convert) arguments=(convert base.lsmt -o new.lsmt --compress zstd --tar) ;;
  esac
}

# What is there under the name that was asked for is whole.
verify_result() {
  case $operation in
    import | convert) expect_sum new.lsmt "$disk_sum" ;;
    commit*)
      jq --arg file "$tmp/new.lsmt" '{lowers: (.lowers + [{file: $file}])}' disk/config.v1.json \
        >stacked.json
      expect_sum stacked.json "${sums[$type]}"
      ;;
    merge) expect_sum new.lsmt "${sums[$type]}" ;;
    clone)
      expect_sum copy "${sums[$type]}"
      expect_checked copy
      ;;
    export) [[ $(sha256sum <out.raw) == "${sums[$type]}" ]] || fail "$what: out.raw is not whole" ;;
  esac
  [[ ! -e new.lsmt ]] || expect_checked new.lsmt
}

# The image itself holds its disk, with the size that it had or is to have.
verify_image() {
  local sum
  case $operation in
    grow | shrink)
      sum=$(sum_of disk)
      [[ $sum == "${sums[$type]}" || $sum == "${grown_sums[$type]}" ]] ||
        fail "$what: the disk is another one"
      ;;
    *) expect_sum disk "${sums[$type]}" ;;
  esac
  obd check disk >check.log 2>&1 && return
  # Between the trailer and the config: the same command goes on from there.
  if [[ $operation != seal && $operation != clone ]] || ! grep -q 'to finish sealing' check.log ||
    ! grep -q ': 1 thing wrong' check.log; then
    fail "$what: obd check disk finds something"
  fi
}

# Whether the operation's outcome is there, and not only a part of it.
is_done() {
  case $operation in
    replace) jq --exit-status 'any(.lowers[]; .file == "merged.lsmt")' disk/config.v1.json ;;
    compact) return 1 ;;
    grow) [[ $(sum_of disk) == "${grown_sums[$type]}" ]] ;;
    shrink) [[ $(sum_of disk) == "${sums[$type]}" ]] ;;
    seal) jq --exit-status 'has("upper") | not' disk/config.v1.json ;;
    clone) [[ -e copy/config.v1.json ]] ;;
    export) [[ -e out.raw ]] ;;
    *) [[ -e new.lsmt ]] ;;
  esac >is_done.log
}

run_whole() {
  obd "${arguments[@]}" >run.log 2>&1 || fail "$what: obd ${arguments[*]} failed: $(<run.log)"
  is_done || [[ $operation == compact ]] || fail "$what: obd ${arguments[*]} did not do it"
}

# Once for each operation and type, undisturbed: which calls it makes, and how long it takes, in
# microseconds.
declare -A durations
measure() {
  local start
  prepare
  start=${EPOCHREALTIME/./}
  run_whole
  durations[$type.$operation]=$((${EPOCHREALTIME/./} - start))
  verify_image
  verify_result
  prepare
  strace -qq -o "calls.$type.$operation" -e trace="$calls" "$OBD_TOOL" "${arguments[@]}" \
    >run.log 2>&1
}

# Sets `picked` to a number from 1 to $1. (A subshell would not continue the seed's row.)
pick() { picked=$(((RANDOM * 32768 + RANDOM) % $1 + 1)); }

run_and_kill() {
  local list=calls.$type.$operation count delay name nth
  if ((RANDOM % 4 == 0)); then
    pick "${durations[$type.$operation]}"
    printf -v delay '%d.%06d' $((picked / 1000000)) $((picked % 1000000))
    what+=" after $delay s"
    timeout --foreground --signal=KILL "$delay" "$OBD_TOOL" "${arguments[@]}" >run.log 2>&1
    return
  fi
  count=$(wc -l <"$list")
  pick "$count"
  # Near the end files get their names.
  if ((RANDOM % 3)); then
    pick $((count < 12 ? count : 12))
    picked=$((count + 1 - picked))
  fi
  name=$(sed -n "${picked}s/(.*//p" "$list")
  nth=$(head -n $picked "$list" | grep -c "^$name(")
  what+=" before $name number $nth"
  strace -qq -o strace.out -e trace="$calls" -e "inject=$name:signal=KILL:when=$nth" \
    "$OBD_TOOL" "${arguments[@]}" >run.log 2>&1
}

kills=0
one_round() {
  what="$type $operation"
  [[ -n ${durations[$type.$operation]:-} ]] || measure
  prepare
  { run_and_kill || ((++kills)); } 2>/dev/null
  echo "$what"
  verify_image
  if is_done; then
    verify_result
    return
  fi
  # An interrupted clone leaves a folder that is no image; it says so and is not taken over.
  if [[ $operation == clone && -e copy/writable_data ]]; then
    expect_fail 1 'no config.v1.json: .*remove it' obd clone disk copy
    rm -r copy
  fi
  run_whole
  verify_image
  verify_result
}

# In turns, each in an order of its own.
end=$((SECONDS + seconds))
rounds=0
while ((SECONDS < end)); do
  left=("${operations[@]/#/append }" "${operations[@]/#/sparse }")
  while ((${#left[@]} > 0 && SECONDS < end)); do
    pick ${#left[@]}
    read -r type operation <<<"${left[picked - 1]}"
    unset "left[picked - 1]"
    left=("${left[@]}")
    one_round
    ((++rounds))
  done
done
fingerprint base.lsmt middle >inputs.after
diff inputs inputs.after || fail 'a lower was changed'
echo "$kills of $rounds commands were killed"
((kills > 0)) || fail 'nothing was killed'
