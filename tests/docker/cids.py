"""What pyaleph and kubo name files by: SHA-256, CIDs of both versions, flatfs block names, and the few nodes of IPFS's
DAG that a test needs (UnixFS files, directories)."""

import base64
import hashlib

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
RAW, DAG_PB = 0x55, 0x70


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    out = []
    while number:
        number, rest = divmod(number, 58)
        out.append(ALPHABET[rest])
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + "".join(reversed(out))


def base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def cid_v0(digest: bytes) -> str:
    """Qm…: a dag-pb node."""
    return base58(b"\x12\x20" + digest)


def cid_v1(digest: bytes, codec: int) -> str:
    """bafkrei… (raw bytes) or bafybei… (dag-pb)."""
    return "b" + base32(bytes([1, codec, 0x12, 0x20]) + digest).lower()


def block_path(digest: bytes) -> str:
    """Where flatfs keeps the block, below `blocks`: next-to-last/2."""
    key = base32(b"\x12\x20" + digest)
    return f"{key[-3:-1]}/{key}.data"


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: "bytes | int") -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def link(digest: bytes, codec: int, name: str, size: int) -> bytes:
    prefix = b"" if codec == DAG_PB else bytes([1, codec])
    return field(2, field(1, prefix + b"\x12\x20" + digest) + field(2, name.encode()) + field(3, size))


def unixfs_file(data: bytes) -> bytes:
    """A file of one block, as `ipfs add` without raw leaves makes it."""
    return field(1, field(1, 2) + field(2, data) + field(3, len(data)))


def unixfs_large(leaves: "list[tuple[bytes, int]]") -> bytes:
    """The root of a file of raw leaves: (digest, length) each."""
    sizes = b"".join(field(4, size) for _, size in leaves)
    total = sum(size for _, size in leaves)
    return b"".join(link(d, RAW, "", size) for d, size in leaves) + field(1, field(1, 2) + field(3, total) + sizes)


def unixfs_directory(entries: "list[tuple[str, bytes, int]]") -> bytes:
    """A directory of raw files: (name, digest, length) each."""
    return b"".join(link(d, RAW, name, size) for name, d, size in sorted(entries)) + field(1, field(1, 1))
