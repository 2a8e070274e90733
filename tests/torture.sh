#!/usr/bin/env bash
# Makes a tree of everything that a backup can get wrong, the same each time it is run (owners, devices, file
# capabilities and 0000 directories' contents need root and are left out otherwise).
#
#   tests/torture.sh DIRECTORY        DIRECTORY must not exist
#
# Judge a restore with: diff <(tests/treelist.py A) <(tests/treelist.py B)
set -euo pipefail
export LC_ALL=C
umask 022

[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
mkdir -- "$1"
cd -- "$1"
is_root=false
[ "$(id -u)" -eq 0 ] && is_root=true
have() { command -v "$1" >/dev/null 2>&1; }
skip() { echo "torture: left out: $1" >&2; }
have python3 || { echo "torture: python3 is needed" >&2; exit 1; }

# Bytes from a seed: a counter through SHA-256.
noise() { # SEED BYTES
  python3 -c '
import hashlib, sys
seed, left, i = sys.argv[1].encode(), int(sys.argv[2]), 0
while left > 0:
    block = b"".join(hashlib.sha256(seed + b"%d" % (i + k)).digest() for k in range(2048))[:left]
    sys.stdout.buffer.write(block)
    left -= len(block)
    i += 2048
' "$1" "$2"
}

### Kinds
mkdir kinds kinds/empty kinds/full
: >kinds/zero
printf x >kinds/one
noise literal 128 >kinds/literal-128
noise literal 129 >kinds/literal-129
noise page 4096 >kinds/page
noise page 4097 >kinds/page-and-one
printf 'inside' >kinds/full/file
ln -s nowhere kinds/dangling
ln -s full kinds/to-directory
ln -s one kinds/to-file
ln -s /etc/hostname kinds/absolute
ln -s ../../../../../../../../../../etc kinds/escaping
ln -s . kinds/self
ln -s "$(python3 -c 'print("long/" * 800 + "end", end="")')" kinds/long-target
ln -s $'new\nline \\ $x' kinds/odd-target
mkfifo -m 0640 kinds/fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("kinds/socket")'
if $is_root; then
  mknod kinds/char c 1 3 2>/dev/null && mknod kinds/char-large c 511 1048575 2>/dev/null \
    && mknod kinds/block b 7 200 2>/dev/null || skip "device nodes"
else
  skip "device nodes, owners, file capabilities (not root)"
fi

### Hard links, also across directories
mkdir links links/a links/b
printf 'shared' >links/first
ln links/first links/second
ln links/first links/a/third
ln links/first links/b/fourth
printf 'other group' >links/b/x
ln links/b/x links/a/y
: >links/empty-1
ln links/empty-1 links/empty-2
ln -s target links/symlink
ln -P links/symlink links/symlink-again
mkfifo links/fifo
ln links/fifo links/fifo-again

### Modes
mkdir modes
for mode in 0000 0001 0100 0200 0400 0444 0600 0644 0666 0777 1644 2755 4755 6711 7777; do
  printf '%s' "$mode" >"modes/f$mode"
  chmod "$mode" "modes/f$mode"
done
for mode in 0700 0755 1777 2775 3770 7777; do
  mkdir "modes/d$mode"
  : >"modes/d$mode/child"
  chmod "$mode" "modes/d$mode"
done
# Unreadable directories, with something in them.
for mode in 0000 0300 0500; do
  mkdir "modes/d$mode"
  : >"modes/d$mode/child"
  chmod "$mode" "modes/d$mode"
done

### Owners
if $is_root; then
  mkdir owners
  for owner in 0:0 1000:1000 1:2 12345:54321 65534:65534 4000000000:4000000001; do
    name=owners/${owner/:/-}
    printf '%s' "$owner" >"$name"
    mkdir "$name.d"
    ln -s "$owner" "$name.l"
    chown -h "$owner" "$name" "$name.d" "$name.l"
  done
  # A setuid file of another: chown after chmod would clear the bit.
  : >owners/setuid
  chown 1234:4321 owners/setuid
  chmod 6755 owners/setuid
fi

### Attributes, ACLs, capabilities
mkdir attributes attributes/directory
printf 'attributes' >attributes/several
: >attributes/large
: >attributes/none
set_attr() { # PATH NAME VALUE-BYTES-SEED LENGTH
  python3 -c '
import hashlib, os, sys
path, name, seed, length = sys.argv[1], sys.argv[2], sys.argv[3].encode(), int(sys.argv[4])
value = b"".join(hashlib.sha256(seed + b"%d" % i).digest() for i in range(length // 32 + 1))[:length]
os.setxattr(path, name, value, follow_symlinks=False)
' "$@" 2>/dev/null
}
if set_attr attributes/several user.first a 10; then
  set_attr attributes/several user.empty b 0
  set_attr attributes/several user.binary c 300
  set_attr attributes/several 'user.with space and=sign' d 5
  set_attr attributes/several "user.$(python3 -c 'print("n" * 250, end="")')" e 3
  set_attr attributes/directory user.on-a-directory f 20
  # ext4 keeps all of a file's attributes within one block: not every file system takes the larger ones.
  set_attr attributes/large user.large g 5120 || set_attr attributes/large user.large g 3500 || skip "large attributes"
  if $is_root; then
    set_attr attributes/several trusted.hidden h 8 || skip "trusted attributes"
    ln -s nowhere attributes/link
    set_attr attributes/link trusted.on-a-link i 8 || skip "attributes of symlinks"
  fi
else
  skip "extended attributes"
fi
if have setfacl && setfacl -m u:1001:rw- attributes/none 2>/dev/null; then
  setfacl -m g:1002:r-x,m::rwx attributes/none
  mkdir attributes/acl-directory
  setfacl -m u:1001:rwx attributes/acl-directory
  setfacl -d -m u:1003:r-x,g:1004:rwx attributes/acl-directory
  : >attributes/acl-directory/inherits
else
  skip "ACLs"
fi
if $is_root && have setcap; then
  printf 'program' >attributes/capable
  chmod 0755 attributes/capable
  setcap cap_net_raw,cap_net_bind_service=ep attributes/capable 2>/dev/null || skip "file capabilities"
fi

### Sparse files
mkdir sparse
python3 - <<'PYTHON'
import os
MIB = 1 << 20
def make(name, size, islands):
    with open("sparse/" + name, "wb") as file:
        for offset, length, byte in islands:
            file.seek(offset)
            file.write(bytes([byte]) * length)
        file.truncate(size)
make("hole-at-head", 3 * MIB, [(2 * MIB, MIB, 1)])
make("hole-in-the-middle", 5 * MIB, [(0, MIB, 2), (4 * MIB, MIB, 3)])
make("hole-at-tail", 4 * MIB, [(0, 100_000, 4)])
make("only-a-hole", 10 * MIB, [])
make("small-hole", 8192, [])
make("odd-end", 3 * MIB + 17, [(MIB + 4096, 5000, 5)])
make("five-gib", 5 << 30, [(123 * 4096, 70_000, 6), (3 << 30, 4096, 7), ((5 << 30) - 10, 10, 8)])
# Zeros that are stored: no hole, and not to become one's content by accident.
with open("sparse/stored-zeros", "wb") as file:
    file.write(bytes(2 * MIB))
PYTHON

### Names
mkdir names
touch_name() { printf '%s' "$1" >"names/$1"; }
touch_name "$(python3 -c 'print("n" * 255, end="")')"
touch_name $'new\nline'
touch_name $'trailing newline\n'
touch_name $'tab\there'
touch_name $'bell\a\e[31m'
touch_name $'invalid\xff\xfeutf8'
touch_name $'\xc3'
touch_name $'cafe\xcc\x81'
touch_name $'caf\xc3\xa9'
touch_name '-rf'
touch_name '--help'
touch_name ' leading and trailing '
touch_name '   '
touch_name 'back\slash'
touch_name '*'
touch_name '?'
touch_name '[a-z]{b,c}'
touch_name '!negated'
touch_name '#comment'
touch_name "quote'quote"
touch_name 'double"quote'
touch_name '$(echo x)`y`;&|<>'
touch_name 'NAME=value:with:colons'
touch_name '...'
touch_name '..x'
touch_name '.hidden'
touch_name '~'
touch_name $'\x01'
touch_name $'\x7f'
touch_name 'CON'
touch_name '.tmp-looks-like-ours'
mkdir -p order/a order/a-dir order/a.d order/a!
for name in a/b a.b a-b aa 'a b' $'a\x01' a0 A a/0 a/z a-dir/x a.d/x 'a!/x' $'\xff' z; do
  printf '%s' "$name" >"order/$name"
done

### A path deeper than PATH_MAX, step by step by handles: no call takes it whole
python3 - <<'PYTHON'
import os
def put(fd, name, data):
    out = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=fd)
    os.write(out, data)
    os.close(out)
os.mkdir("deep")
here = os.open("deep", os.O_RDONLY | os.O_DIRECTORY)
step = "d" * 200
for level in range(1, 33):
    put(here, "at-%d" % level, b"%d" % level)
    os.mkdir(step, dir_fd=here)
    below = os.open(step, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
    os.close(here)
    here = below
put(here, "bottom", b"bottom")
os.symlink("../bottom", "link", dir_fd=here)
os.mkfifo("fifo", dir_fd=here)
try:
    os.setxattr("/proc/self/fd/%d/bottom" % here, "user.deep", b"deep", follow_symlinks=False)
except OSError:
    pass
PYTHON

### Many small files, a large one, a compressible one, equal ones
mkdir many
python3 - <<'PYTHON'
import hashlib
for i in range(2000):
    seed = hashlib.sha256(b"many%d" % i).digest()
    with open("many/%04d-%s" % (i, seed.hex()[:8]), "wb") as file:
        file.write((seed * 40)[: i % 1200])
PYTHON
noise random 20971520 >random-20-mib
python3 -c '
for i in range(120000):
    print("INSERT INTO t VALUES (%d, %d, \x27some words that come again\x27);" % (i, i * 7919 % 1000))
' >compressible
cp random-20-mib random-20-mib-again
{ head -c 5000000 random-20-mib; printf 'inserted'; tail -c +5000001 random-20-mib; } >random-20-mib-edited

### Times last: all of the tree first gets one fixed time, children before their directories
python3 - <<'PYTHON'
import hashlib, os
def stamp(fd, name, path):
    # A time from the path: 2001 to 2033, with nanoseconds.
    number = int.from_bytes(hashlib.sha256(path).digest()[:8], "big")
    at = (10**9 + number % 10**9) * 10**9 + number % 10**9
    os.utime(name, ns=(at, at), dir_fd=fd, follow_symlinks=False)
def walk(fd, path):
    for name in sorted(os.listdir(fd), key=os.fsencode):
        name = os.fsencode(name)
        below = path + b"/" + name
        stat = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.st_mode & 0o170000 == 0o040000:
            try:
                child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except PermissionError:
                child = None
            if child is not None:
                try:
                    walk(child, below)
                except PermissionError:
                    pass
                os.close(child)
        stamp(fd, name, below)
root = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
walk(root, b"")
os.mkdir("times")
for name, at in [
    ("before-1970", -1), ("long-before-1970", -1_500_000_000_123_456_789), ("epoch", 0), ("one-nanosecond", 1),
    ("last-nanosecond", 1_600_000_000_999_999_999), ("year-2038", (1 << 31) * 10**9 + 5),
    ("far-future", 15_000_000_000 * 10**9 + 1), ("negative-fraction", -999_999_999),
]:
    for path, make in [("times/" + name, lambda p: open(p, "w").close()), ("times/" + name + ".d", os.mkdir)]:
        make(path)
        os.utime(path, ns=(at, at))
    os.symlink("x", "times/" + name + ".l")
    os.utime("times/" + name + ".l", ns=(at, at), follow_symlinks=False)
stamp(root, b"times", b"/times")
stamp(root, b".", b"")
PYTHON
