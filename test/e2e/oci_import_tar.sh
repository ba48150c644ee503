#!/usr/bin/env bash
# obd import-tar: layers of tar files come to the tree that GNU tar and their whiteouts come to.
own_mounts=yes
. "$(dirname "$0")/functions.sh"
. "$source_dir/test/e2e/oci_functions.sh"
requires_command mkfs.ext4 e2fsck setfattr setfacl getfattr bsdtar zstd
requires_loop_devices

# --- a tree with one of everything ---

scratch_ext4 src 64M
scratch_ext4 expected 64M
mkdir -p src/lower/{bin,etc/deep/er,tmp,gone/sub,opaque/sub,turns-file,empty}
cd src/lower
random_raw bin/tool 1M
chmod 4755 bin/tool
chmod 1777 tmp
chown 1234:4321 bin/tool
chown 3000000000:3000000001 tmp
setfattr -n user.note -v plain bin/tool
setfattr -n trusted.binary -v 0x00ff0a3d00 bin/tool
setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 bin/tool
setfattr -n user.large -v "$(head -c 2000 /dev/zero | tr '\0' L)" etc
setfacl -m u:1001:r--,g:77:rwx bin/tool
setfacl -d -m u:1001:r-x,g::r-x etc
ln bin/tool bin/hard
ln -s ../bin/tool etc/link
ln -s /bin/tool etc/absolute
ln -s "$(head -c 300 /dev/zero | tr '\0' s)" etc/long-link
cp --no-dereference etc/long-link etc/deep/long-link
mknod etc/null c 1 3
mknod etc/wide b 259 70000
mkfifo etc/fifo
truncate -s 10M etc/sparse
printf data | dd of=etc/sparse bs=1 seek=5000000 conv=notrunc status=none
truncate -s 5G etc/huge
printf end | dd of=etc/huge bs=1 seek=5368709000 conv=notrunc status=none
echo old >etc/replaced
echo x >gone/sub/f
echo x >opaque/sub/lower
echo x >opaque/lower
echo x >turns-file/in
echo x >turns-dir
printf 'a\nname' >"etc/with
newline"
touch -d '1969-12-31 23:59:58.25 UTC' etc/replaced
touch -d '2040-01-02 03:04:05.123456789 UTC' empty
touch -d '2400-01-01 UTC' etc/fifo
cd "$tmp"
chmod 700 src/lower/empty
mkdir -p src/upper/{etc,opaque,turns-dir,new}
cd src/upper
echo new >etc/replaced
echo upper >opaque/upper
echo file >turns-file
echo in >turns-dir/in
chmod 2755 new
setfattr -n user.upper -v u new
: >.wh.gone
: >opaque/.wh..wh..opq
: >etc/.wh.long-link
cd "$tmp"

tar_of() {
  tar --create --format=posix --numeric-owner --sparse --acls --xattrs --xattrs-include='*' \
    --pax-option=delete=atime,delete=ctime -C "src/$1" --sort=name . "${@:2}"
}
tar_of lower >lower.tar
tar_of upper | gzip >upper.tar.gz

# --- what they come to ---

untar() { tar --extract --numeric-owner --acls --xattrs --xattrs-include='*' --same-permissions -C expected "$@"; }
untar --file lower.tar 2>tar.log
rm -r expected/gone expected/opaque/* expected/etc/long-link expected/turns-file expected/turns-dir
# A layer's directory replaces the attributes of the one below; GNU tar would add to them.
setfattr -x user.large expected/etc
untar --file upper.tar.gz --exclude='.wh.*' 2>>tar.log

obd import-tar lower.tar upper.tar.gz -o image --size 2G >import.out 2>progress.out
[[ ! -s progress.out ]] || fail "import-tar said: $(<progress.out)"
grep -Eq '^created .*/image/config.v1.json: disk of 2 GiB, 2 lowers, no upper$' import.out ||
  fail "import-tar said: $(<import.out)"
[[ "$(cd image && echo *)" == 'config.v1.json layer-0.lsmt layer-1.lsmt' ]] || fail "$(ls image)"
obd check image >/dev/null
mount_image image actual
expect_same_tree expected actual
[[ "$(tail -c 284 actual/etc/huge | tr -d '\0')" == end ]] || fail 'the end of a huge file'
(($(stat --format=%b actual/etc/huge) < 100)) || fail 'a sparse file is not sparse'
obd info --json image >info.json
expect_json info.json '.layers[1].parent_uuid == .layers[0].uuid' \
  '.layers[0].message | startswith("sha256:")' '.layers[1].file_bytes < 1048576'
[[ "$(jq -r '.layers[0].message' info.json)" == "sha256:$(sha256sum <lower.tar | cut -d' ' -f1)" ]] ||
  fail 'the diff id of the first layer'
[[ "$(jq -r '.layers[1].message' info.json)" == "sha256:$(zcat upper.tar.gz | sha256sum | cut -d' ' -f1)" ]] ||
  fail 'the diff id of the second layer'

# Stacked upon an image, compressed, with an upper; and from other programs' tar files.
obd import-tar lower.tar -o base --size 2G
zstd -q upper.tar.gz -o twice.zst
zcat upper.tar.gz | zstd -q >upper.tar.zst
obd import-tar upper.tar.zst --from base -o stacked --type sparse --compress lz4 --tar --json >stacked.json
expect_json stacked.json '.lowers == 2' '.upper == "sparse"' '.layers[0].whiteouts == 3' \
  '.layers[0].layer.container == "zfile lz4 4K in tar"' '.layers[0].warnings == []'
mount_image stacked stacked-actual
expect_same_tree expected stacked-actual
expect_fail 1 'zstd: |checksum' obd import-tar twice.zst -o bad
[[ ! -e bad ]] || fail 'a failed import left its folder'
bsdtar --create --format=pax --numeric-owner --acls --xattrs -C src/lower -f bsd.tar \
  bin etc/null etc/fifo etc/link tmp empty
obd import-tar bsd.tar -o bsd --size 256M
mount_image bsd bsd-actual
scratch_ext4 bsd-expected 64M
bsdtar --extract -p --numeric-owner --acls --xattrs -f bsd.tar -C bsd-expected
# Bsdtar makes etc on the way, with the time of the day.
touch -d @0 bsd-expected/etc
describe_tree bsd-expected | grep -v '^etc d' >expected.tree
describe_tree bsd-actual | grep -v '^etc d' >actual.tree
diff expected.tree actual.tree || fail "what bsdtar wrote is not what came"

# --- refusals, and what they leave ---

head -c 300000 lower.tar >cut.tar
expect_fail 1 "cut.tar: .*cut off" obd import-tar cut.tar -o cut
[[ ! -e cut ]] || fail 'a cut-off layer left its folder'
expect_fail 1 'no-such.tar' obd import-tar lower.tar no-such.tar -o none
[[ ! -e none ]] || fail 'a missing layer left a folder'
expect_fail 1 'holds config.v1.json already' obd import-tar lower.tar -o image
expect_fail 1 'full' obd import-tar lower.tar -o small --size 2M
[[ ! -e small ]] || fail 'a full disk left its folder'
expect_fail 1 'is for a new file system' obd import-tar upper.tar.gz --from base -o none --size 1G
expect_fail 1 'still writable' obd import-tar upper.tar.gz --from stacked -o none
expect_fail 2 'LAYER.tar' obd import-tar -o none

# A host without room.
mkdir tiny
mount -t tmpfs -o size=6M tmpfs tiny
cleanup_fn umount tiny
expect_fail 1 'space|No space' obd import-tar lower.tar -o tiny/image --size 256M --mkfs-options '-O ^has_journal'
[[ -z "$(ls tiny)" ]] || fail "a full host: $(ls -R tiny)"

# Killed half-way: no image, and the next one says what to do about the rest.
(obd import-tar lower.tar upper.tar.gz -o killed --size 2G >/dev/null 2>&1 & echo $! >pid; wait) &
for ((i = 0; i < 3000; ++i)); do
  [[ -e killed/writable_data ]] && break
  sleep 0.01
done
kill -KILL "$(<pid)" 2>/dev/null || true
wait
if [[ ! -e killed/config.v1.json ]]; then
  expect_fail 1 'command that was killed' obd import-tar lower.tar -o killed --size 2G
fi

# The same input gives the same layers.
for copy in one two; do
  SOURCE_DATE_EPOCH=1700000000 obd import-tar lower.tar upper.tar.gz -o $copy --size 2G >/dev/null
done
expect_same one/layer-0.lsmt two/layer-0.lsmt
expect_same one/layer-1.lsmt two/layer-1.lsmt
expect_fail 1 'SOURCE_DATE_EPOCH' env SOURCE_DATE_EPOCH=today "$OBD_TOOL" import-tar lower.tar -o none
