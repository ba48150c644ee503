#!/usr/bin/env bash
# Commands that change one image's config at the same time: each succeeds or says why not, and the
# disk stays what it is: two_editors.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

random_raw base.raw 1M
obd import base.raw -o base.lsmt >/dev/null
for ((i = 0; i < 3; ++i)); do
  truncate -s 1M "layer$i.raw"
  random_raw part 64K
  patch "layer$i.raw" $((i * 128 * 1024)) part
  obd import "layer$i.raw" -o "layer$i.lsmt" >/dev/null
done
obd create disk --type "$type" --lower base.lsmt layer{0,1,2}.lsmt >/dev/null
serve disk
qemu_io "$uri" 'write -P 7 700k 64k' 'discard 64k 64k'
stop_nbdkit
read_disk disk expected.raw

commands=('seal image' 'clone image copy' 'merge image --range 0..1 --replace -o low.lsmt'
  'merge image --range 2..3 --replace -o high.lsmt')
changed=0
for ((round = 0; round < 24; ++round)); do
  rm -rf image copy low.lsmt high.lsmt
  cp -r disk image
  chosen=() pids=()
  for ((i = 0; i < 2; ++i)); do
    # Every pair of different commands comes, in both orders.
    chosen[i]=${commands[(round + i * (1 + round / 4 % 3)) % 4]}
    # shellcheck disable=SC2086
    obd ${chosen[i]} >"$i.out" 2>&1 &
    pids[i]=$!
  done
  for ((i = 0; i < 2; ++i)); do
    if ! wait "${pids[i]}"; then
      grep -Eq 'meanwhile|in use by|no upper|sealed already|there is no lower' "$i.out" ||
        fail "round $round, ${chosen[i]}: $(<"$i.out")"
      continue
    fi
    changed=$((changed + 1))
    # What a command says that it did is in the config, whatever the other one did.
    case ${chosen[i]} in
      merge*) grep -q "${chosen[i]##* }" image/config.v1.json ||
        fail "round $round: what ${chosen[i]} did was undone by ${chosen[1 - i]}" ;;
      seal*) grep -q '/image/writable_data"\|"writable_data"' image/config.v1.json ||
        fail "round $round: the sealed layer is gone" ;;
    esac
  done
  obd check image >check.out || fail "round $round: $(<check.out)"
  obd export image -o image.raw --force >/dev/null
  expect_same expected.raw image.raw
  if [[ -e copy/config.v1.json ]]; then
    obd export copy -o copy.raw --force >/dev/null
    expect_same expected.raw copy.raw
  fi
done
((changed >= 20)) || fail "only $changed of 48 commands went through"
