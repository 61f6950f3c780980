"""What a converted label was made from, kept as hashes in the label itself.

Dates tell nothing of copied and unpacked files: content is compared with content.
"""

import hashlib
import re
import zlib

import numpy as np

from .train_ids import LabelSpace

TRAIN_IDS_SUFFIX = "_labelTrainIds.png"
# In the hash of what an output was made from; another one where converting changes.
VERSION = 1
_HEADER = 33  # bytes of a PNG's signature and first part
_STAMP = re.compile(rb"tEXtpppc:made-from\0([0-9a-f]+) ([0-9a-f]+)")


def source_hash(content: bytes, space: LabelSpace, numbers_are_ids: bool = False) -> str:
    """The hash of a raw label's content and of the rules by which it is converted."""
    rules = repr((VERSION, space)) + ", numbers" * numbers_are_ids
    return _hash(content, rules.encode())


def pixel_hash(label: np.ndarray) -> str:
    """The hash of a label's pixels ``(H, W)``."""
    return _hash(label.tobytes())


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def stamped(png: bytes, source: str, label: np.ndarray) -> bytes:
    """An encoded PNG with a text that says what it was made from, which OpenCV cannot write."""
    part = b"tEXtpppc:made-from\0" + f"{source} {pixel_hash(label)}".encode()
    size, checksum = (len(part) - 4).to_bytes(4, "big"), zlib.crc32(part).to_bytes(4, "big")
    return png[:_HEADER] + size + part + checksum + png[_HEADER:]


def stamp_of(path: str) -> tuple[str, str]:
    """The hashes of source and pixels in a converted label; "" where this project made none."""
    try:
        with open(path, "rb") as file:
            found = _STAMP.search(file.read(4096))
    except OSError:
        return "", ""
    return (found[1].decode(), found[2].decode()) if found else ("", "")
