"""What an AVI's own index says that its header does not."""

import struct
from pathlib import Path

__all__ = ["empty_frames"]


def empty_frames(path: Path) -> int:
    """How many of the frames that an AVI promises hold nothing, which says that the picture before them stays.

    That is how AVI, which has no times, has a rate that varies. 0 where there is no index (`idx1`, one entry of 16
    bytes a chunk: identifier, flags, offset, size; OpenDML's further indices are not looked at).
    """
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return 0
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, size = head[:4], int(struct.unpack("<I", head[4:])[0])
            if name == b"idx1":
                index = file.read(size)
                entries = struct.iter_unpack("<4s8xI", index[: len(index) // 16 * 16])
                return sum(length == 0 for chunk, length in entries if chunk[2:] in (b"dc", b"db"))
            file.seek(size + size % 2, 1)
    return 0
