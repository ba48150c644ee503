#!/usr/bin/env bash
# Makes a guest's initramfs: busybox, kernel modules, programs with their libraries, this folder's
# init, and a payload for it to run.

set -euo pipefail
shopt -s inherit_errexit

usage() {
  cat <<'USAGE'
Usage: make_initramfs.sh --kernel DIR --payload SCRIPT --output FILE
                         [--module "NAME PARAMETER..."]... [FILE]...

  --kernel DIR      what fetch_kernel.sh printed
  --payload SCRIPT  what init runs (busybox sh)
  --output FILE     the initramfs: an uncompressed cpio archive
  --module NAME     a kernel module, loaded with what it depends on, in the order given; one that
                    the kernel has built in is an error
  FILE              a program or a shared object (an nbdkit plugin, say), brought with the libraries
                    that it needs; below /usr it keeps its place, others go to /usr/local/bin and
                    /usr/local/lib
USAGE
}

fail() {
  printf 'make_initramfs.sh: %s\n' "$1" >&2
  exit 1
}

modules=() files=() kernel='' payload='' output=''
while (($# > 0)); do
  case $1 in
    --kernel | --payload | --output | --module)
      (($# >= 2)) || fail "$1 needs a value"
      case $1 in
        --kernel) kernel=$2 ;;
        --payload) payload=$2 ;;
        --output) output=$2 ;;
        --module) modules+=("$2") ;;
      esac
      shift 2
      ;;
    --help | -h)
      usage
      exit 0
      ;;
    -*) fail "unknown option $1" ;;
    *)
      files+=("$1")
      shift
      ;;
  esac
done
[[ -n $kernel && -n $payload && -n $output ]] || fail '--kernel, --payload and --output are needed'

# Debian leaves the folders of mkfs and modinfo out of an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(mktemp --directory "${TMPDIR:-/tmp}/obd-initramfs.XXXXXXXX")
trap 'rm --recursive --force "$root"' EXIT
trap 'exit 143' HUP INT TERM

# As Debian has it: the loader finds libraries in its default folders, without a cache of its own.
mkdir -p "$root"/{dev,etc,mnt,proc,run,sys,tmp,modules} "$root"/usr/{bin,sbin,lib,lib64}
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root/"

# Puts a file, with the content of what a link points to, at its place in the guest.
add_file() {
  local from=$1 to=$2
  [[ -e $root$to ]] || install -D --mode=755 "$from" "$root$to"
}

add_with_libraries() {
  local file=$1 place=$1 listed library
  [[ -e $file ]] || fail "there is no file $file"
  if [[ $file == *.so && $file != /usr/* ]]; then
    place=/usr/local/lib/${file##*/}
  elif [[ ! $file =~ ^(/usr)?/s?bin/ ]]; then
    place=/usr/local/bin/${file##*/}
  fi
  add_file "$file" "$place"
  # A script or a static program has no libraries, which is an error to ldd.
  listed=$(ldd "$file" 2>/dev/null) || return 0
  # What was just built carries debug information, ten times as large as itself.
  [[ $place != /usr/local/* ]] || strip --strip-debug "$root$place"
  [[ $listed != *'not found'* ]] || fail "$file needs libraries that are missing: $listed"
  while read -r library; do
    add_file "$library" "$library"
  done < <(grep --only-matching --extended-regexp '/[^ ]+\.so[^ ]*' <<<"$listed")
}

# add_module NAME PARAMETER...: after those it depends on.
add_module() {
  local name=$1 path depends dependency
  path=$(find "$kernel/modules" \( -name "$name.ko" -o -name "${name//_/-}.ko" \) -print -quit)
  [[ -n $path ]] || fail "the kernel has no module $name"
  [[ ! -e $root/modules/${path##*/} ]] || return 0
  depends=$(modinfo --field depends "$path")
  for dependency in ${depends//,/ }; do add_module "$dependency"; done
  cp "$path" "$root/modules/"
  printf '%s\n' "${path##*/} ${*:2}" >>"$root/modules/order"
}

touch "$root/modules/order"
for module in ${modules[@]+"${modules[@]}"}; do
  read -ra words <<<"$module"
  add_module "${words[@]}"
done
for file in ${files[@]+"${files[@]}"}; do add_with_libraries "$file"; done
install --mode=755 "$here/init" "$root/init"
install --mode=755 "$payload" "$root/payload"

# The real programs come first: busybox has another mkfs.ext2, for example.
busybox=$(command -v busybox)
! ldd "$busybox" >/dev/null 2>&1 || fail "$busybox is not static (package busybox-static)"
add_file "$busybox" /bin/busybox
while read -r applet; do
  [[ -e $root/$applet || -L $root/$applet ]] || ln -s /bin/busybox "$root/$applet"
done < <("$busybox" --list-full | grep '^\(usr/\)\?s\?bin/')

(cd "$root" && find . -print0 | cpio --null --create --format=newc --quiet) >"$output"
