#!/usr/bin/env bash
# As 03, for what else two names that are one can meet: directories (which would be merged), links, hard links, names that a
# file system normalizes (HFS+, APFS, ZFS), targets that are there already, --delete.
# Right: of each pair the first is there, whole, after every run; the other is named, exit code 3; nothing restored is deleted.
. "$(dirname "$0")/lib.sh"

python=
for p in python3 /usr/bin/python3; do $p -c 'import fuse; fuse.Fuse' 2>/dev/null && python=$p; done
[ -n "$python" ] || cannot "no python3-fuse"
mkdir fold back
cat >cifs.py <<'P'
import os, errno, fuse, unicodedata
same = lambda a: unicodedata.normalize('NFC', a).lower()
fuse.fuse_python_api = (0, 2)
ROOT = os.environ['CIROOT']
def res(p):
    cur = ROOT
    for c in [c for c in p.split('/') if c]:
        try: names = os.listdir(cur)
        except OSError: names = []
        if c not in names:
            c = next((n for n in names if same(n) == same(c)), c)
        cur = os.path.join(cur, c)
    return cur
class F(fuse.Fuse):
    def getattr(s, p): return os.lstat(res(p))
    def readlink(s, p): return os.readlink(res(p))
    def readdir(s, p, o):
        for e in ['.', '..'] + os.listdir(res(p)): yield fuse.Direntry(e)
    def unlink(s, p): os.unlink(res(p))
    def rmdir(s, p): os.rmdir(res(p))
    def symlink(s, a, b): os.symlink(a, res(b))
    def rename(s, a, b): os.rename(res(a), res(b))
    def link(s, a, b): os.link(res(a), res(b))
    def chmod(s, p, m): os.chmod(res(p), m)
    def chown(s, p, u, g): os.lchown(res(p), u, g)
    def truncate(s, p, l): os.truncate(res(p), l)
    def mknod(s, p, m, d):
        if os.path.lexists(res(p)): return -errno.EEXIST
        os.mknod(res(p), m, d)
    def mkdir(s, p, m): os.mkdir(res(p), m)
    def utimens(s, p, a, m): os.utime(res(p), ns=(a.tv_sec*10**9+a.tv_nsec, m.tv_sec*10**9+m.tv_nsec), follow_symlinks=False)
    def open(s, p, f): os.close(os.open(res(p), f & ~os.O_CREAT))
    def read(s, p, n, o):
        with open(res(p), 'rb') as f: f.seek(o); return f.read(n)
    def write(s, p, b, o):
        fd = os.open(res(p), os.O_WRONLY); os.pwrite(fd, b, o); os.close(fd); return len(b)
    def statfs(s): return os.statvfs(ROOT)
f = F(version='x', usage=''); f.parse(errex=1); f.main()
P
CIROOT=$T/back $python cifs.py fold -o attr_timeout=0,entry_timeout=0,negative_timeout=0 || cannot "no FUSE mount"
undo+=("umount -l $T/fold")
sleep 0.5
mkdir -p s/Dir s/dir s/mixed
echo a >s/Dir/a && echo b >s/dir/b
echo nfc >"s/$(printf 'caf\xc3\xa9')" && echo nfd >"s/$(printf 'cafe\xcc\x81')"
echo linked >s/Hard && ln s/Hard s/hard
ln -s one s/mixed/LINK && ln -s two s/mixed/link
echo file >s/mixed/TREE && mkdir s/mixed/tree && echo below >s/mixed/tree/f
ice -q backup --init s || exit 2
check() {
    [ "$rc" = 3 ] || wrong "$1: exit code $rc, not 3: $(cat out)"
    [ "$(cat "fold/out/Dir/a" 2>&1)" = a ] || wrong "$1: Dir/a is not whole"
    [ ! -e fold/out/Dir/b ] || wrong "$1: two directories were merged"
    [ "$(cat fold/out/cafe*  2>/dev/null)$(cat fold/out/caf[!e]* 2>/dev/null)" = nfd ] || wrong "$1: the first of two spellings is not there"
    [ "$(readlink fold/out/mixed/LINK)" = one ] || wrong "$1: the first link is not there"
    [ -f fold/out/mixed/TREE ] || [ "$(cat fold/out/mixed/tree/f)" = below ] || wrong "$1: neither the file nor the directory is there"
    grep -qi "warning: s/mixed/tree" out || wrong "$1: what has no place beside s/mixed/TREE is not named: $(cat out)"
    [ "$(cat fold/out/Hard)" = linked ] || wrong "$1: the hard-linked file is not there"
    for name in 's/dir' 's/hard' 's/mixed/link'; do
        grep -q "warning: $name: " out || wrong "$1: $name is not named: $(cat out)"
    done
}
for how in "into nothing" "once more" "--overwrite always" "--delete" "--overwrite never"; do
    case $how in --*) words=$how ;; *) words= ;; esac
    ice restore latest:s fold/out $words >out 2>&1
    rc=$?
    check "$how"
done
# A target that has the names in another case.
mkdir fold/other && echo old >fold/other/DIR && echo old >fold/other/HARD
ice restore latest:s fold/other >out 2>&1
rc=$?
[ "$rc" = 3 ] && [ "$(cat fold/other/Dir/a)" = a ] && [ "$(cat fold/other/Hard)" = linked ] || wrong "over other spellings: exit code $rc: $(cat out)"
right "of each pair the first is there, the other is named"
