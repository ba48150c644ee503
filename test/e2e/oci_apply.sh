#!/usr/bin/env bash
# overlaybd-apply: a layer onto an image's writable layer, whole or not at all.
own_mounts=yes
. "$(dirname "$0")/functions.sh"
. "$source_dir/test/e2e/oci_functions.sh"
requires_command mkfs.ext4 e2fsck
requires_loop_devices
apply() { "$OBD_BUILD_DIR/bin/overlaybd-apply" "$@"; }

mkdir -p lower/d/e upper/d
echo one >lower/d/one
echo two >lower/d/e/two
random_raw lower/big 2M
: >upper/d/.wh.e
echo new >upper/d/new
tar --create --numeric-owner --sort=name --mtime=@1600000000 -C lower -f lower.tar ./d ./big
tar --create --numeric-owner --sort=name --mtime=@1600000001 -C upper -zf upper.tar.gz ./d

mkdir expected
tar -xpf lower.tar -C expected
rm -r expected/d/e
tar -xpf upper.tar.gz -C expected --exclude='.wh.*'
cat >same_tree.sh <<'EOS'
cd "$1" && find . -mindepth 1 ! -name lost+found -printf '%P %y %m %U:%G %T@ %l\n' | sort
find . -type f -exec sha256sum {} + | sort
EOS
expect_tree() {
  mount_image "$1" "$2"
  diff <(bash same_tree.sh expected) <(bash same_tree.sh "$2") || fail "$1 is not what it should be"
}

for type in append sparse; do
  obd create $type --size 256M --type $type
  said=$(apply --mkfs lower.tar $type/config.v1.json 2>&1)
  [[ $said == *'overlaybd-apply done' ]] || fail "apply said: $said"
  digest=$(zcat upper.tar.gz | sha256sum | cut -d' ' -f1)
  apply --checksum "sha256:$digest" --verbose --service_config_path x upper.tar.gz $type/config.v1.json
  expect_tree $type mounted-$type
done

# As overlaybd's converter does it: a layer on a sealed one, its writable layer made by its own tool.
obd seal append
mkdir next
"$OBD_BUILD_DIR/bin/overlaybd-create" -s next/writable_data next/writable_index 0
cat >next/config.v1.json <<EOS
{"lowers": [{"file": "$tmp/append/writable_data"}],
 "upper": {"data": "$tmp/next/writable_data", "index": "$tmp/next/writable_index"}}
EOS
mkdir third
echo third >third/f
touch -d @1600000002 third/f
tar --create -C third -f third.tar f
apply third.tar next/config.v1.json
cp third/f expected/f
touch -r third/f expected/f
expect_tree next mounted-next
"$OBD_BUILD_DIR/bin/overlaybd-commit" -z -t next/writable_data next/writable_index next/overlaybd.commit
obd create committed --lower append/writable_data next/overlaybd.commit
expect_tree committed mounted-committed

# A plain disk.
truncate -s 256M disk.raw
apply --raw --mkfs lower.tar disk.raw
apply --raw upper.tar.gz disk.raw
e2fsck -fn disk.raw >fsck.log 2>&1 || fail "e2fsck: $(<fsck.log)"

# --- what fails changes nothing ---

obd export sparse -o before.raw
head -c 1000000 lower.tar >cut.tar
expect_fail 255 'cut off' apply cut.tar sparse/config.v1.json
expect_fail 255 'has the checksum' apply --checksum 00 upper.tar.gz sparse/config.v1.json
expect_fail 255 'holds data' apply --mkfs lower.tar sparse/config.v1.json
expect_fail 255 'no upper' apply lower.tar append/config.v1.json
expect_fail 255 'ext4 alone' apply --fstype xfs lower.tar sparse/config.v1.json
obd create bare --size 16M
expect_fail 255 'no ext4' apply lower.tar bare/config.v1.json
serve sparse
expect_fail 255 'pid|process' apply upper.tar.gz sparse/config.v1.json
stop_nbdkit
obd export sparse -o after.raw
expect_same before.raw after.raw
[[ "$(cd sparse && echo *)" == 'config.v1.json writable_data writable_index' ]] || fail "$(ls sparse)"
for option in --import --from_qcow2 '--gz_index_path x'; do
  # shellcheck disable=SC2086
  ! apply $option lower.tar sparse/config.v1.json 2>option.log || fail "$option was taken"
  grep -q -- "${option%% *}" option.log || fail "$option: $(<option.log)"
done

# A full host: the old disk, and it works again when there is room.
mkdir tiny
mount -t tmpfs -o size=8M tmpfs tiny
cleanup_fn umount tiny
obd create tiny/image --size 64M
apply --mkfs upper.tar.gz tiny/image/config.v1.json
mkdir large
random_raw large/big 7M
tar --create -C large -f large.tar big
obd export tiny/image -o before.raw --force
expect_fail 255 'space' apply large.tar tiny/image/config.v1.json
obd export tiny/image -o after.raw --force
expect_same before.raw after.raw
mount -o remount,size=64M tiny
apply large.tar tiny/image/config.v1.json
obd check tiny/image
obd export tiny/image -o after.raw --force
e2fsck -fn after.raw >fsck.log 2>&1 || fail "e2fsck: $(<fsck.log)"
