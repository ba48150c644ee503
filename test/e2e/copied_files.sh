#!/usr/bin/env bash
# The two files of a writable layer, copied with holes made or filled, are the same layer:
# copied_files.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 8M
obd import lower.raw -o lower.lsmt
random_raw part 256K
cp lower.raw expected.raw

for how in stop kill; do
  disk=disk-$how
  obd create $disk --type "$type" --lower lower.lsmt
  serve $disk
  # 512 bytes and a trim over lower data, zeros that were written, a part of a block, a zero extent.
  qemu_io "$uri" 'write -P 0x77 4608 512' 'discard 1M 64k' 'write -P 0 2M 16k' \
    'write -P 0x78 3145984 2560' 'write -z 4M 64k' 'write -s part 5M 256k' 'discard 5184k 4k'
  ${how}_nbdkit
  head -c 512 /dev/zero | tr '\0' '\167' >short
  patch expected.raw 4608 short
  zero_range expected.raw $((1 << 20)) 65536
  zero_range expected.raw $((2 << 20)) 16384
  head -c 2560 /dev/zero | tr '\0' '\170' >short
  patch expected.raw 3145984 short
  zero_range expected.raw $((4 << 20)) 65536
  patch expected.raw $((5 << 20)) part
  zero_range expected.raw $((5184 << 10)) 4096

  for mode in always never; do
    copy=copy-$how-$mode
    mkdir "$copy"
    cp --sparse=$mode $disk/writable_data $disk/writable_index "$copy"
    # Relative paths are taken from the config's folder.
    printf '{"lowers": [{"file": "../lower.lsmt"}],
      "upper": {"data": "writable_data", "index": "writable_index"}}' >"$copy/config.v1.json"
    obd check "$copy"
    expect_disk "$copy" expected.raw -r
    # And it goes on as a writable layer.
    serve "$copy"
    qemu_io "$uri" 'read -P 0x77 4608 512' 'write -P 0x79 1052672 512' 'discard 6M 4k'
    kill_nbdkit
    serve "$copy"
    qemu_io "$uri" 'read -P 0 1M 4k' 'read -P 0x79 1052672 512' 'read -P 0 1053184 60928' \
      'read -P 0 6M 4k'
    stop_nbdkit
  done
  obd check $disk
  expect_disk $disk expected.raw
done
