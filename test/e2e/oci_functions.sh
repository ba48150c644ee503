# What the tests of layers' tar files share; after functions.sh.
# shellcheck shell=bash

# mount_image IMAGE DIR: what the image's ext4 holds, read-only, after e2fsck has nothing to say.
mount_image() {
  rm -f "$2.raw"
  obd export "$1" -o "$2.raw" >/dev/null
  e2fsck -fn "$2.raw" >fsck.log 2>&1 || fail "e2fsck: $(<fsck.log)"
  mkdir -p "$2"
  mount -o loop,ro,noload "$2.raw" "$2"
  cleanup_fn umount "$2"
}

# Sizes of directories and their number of links are the file system's own matter.
describe_tree() {
  (
    cd "$1" || exit 1
    find . -mindepth 1 -type d -printf '%P %y %m %U:%G %T@\n'
    find . -mindepth 1 ! -type d -printf '%P %y %m %U:%G %T@ %s %n %l\n'
    find . -mindepth 1 \( -type c -o -type b \) -exec stat --format='%n device %t:%T' {} +
    find . -type f -size -100M -print0 | sort --zero-terminated | xargs --null --no-run-if-empty sha256sum
    getfattr --recursive --physical --no-dereference --dump --match=- --encoding=hex . 2>/dev/null |
      awk -v RS= '{ print }' | tr '\n' ' ' | sed 's/# file: /\n/g' | sed 's/ *$//'
  ) | sed 's/\r//' | sort
}

# expect_same_tree EXPECTED ACTUAL
expect_same_tree() {
  describe_tree "$1" >expected.tree
  describe_tree "$2" >actual.tree
  diff expected.tree actual.tree | cut -c-200 >tree.log || fail "$1 and $2 differ: $(head -n 20 tree.log)"
}

# scratch_ext4 DIR SIZE: a file system of its own that keeps every kind of attribute.
scratch_ext4() {
  truncate -s "$2" "$1.ext4"
  mkfs.ext4 -q -F -b 4096 "$1.ext4"
  mkdir -p "$1"
  mount -o loop "$1.ext4" "$1"
  cleanup_fn umount "$1"
  rmdir "$1/lost+found"
}
