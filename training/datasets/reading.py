"""Image and label files, read exactly: what is stored, never what a viewer would show.

A label file is a gray image whose pixels are values, a palette PNG whose pixels are indices (their colours do not
matter), or an image of colours that stand for classes. A decoder maps any of these to labels uint8 [H,W].
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.labels import IGNORE

__all__ = [
    "IMAGE_SUFFIXES",
    "Decode",
    "ForeignLabel",
    "Image",
    "colour_decoder",
    "gray_decoder",
    "read_image",
    "read_values",
    "read_wide_values",
    "value_decoder",
]

Image = NDArray[np.uint8]
Decode = Callable[[Path], Image]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_UNKNOWN = 254  # in look-up tables; so there may be 254 classes
_PNG = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3  # the colour type in a PNG's header


class ForeignLabel(InputError):
    """A label file that can be read and holds what its data set does not have."""


def read_image(path: Path) -> Image:
    """Read an image file as uint8 [H,W,3], blue-green-red. Raises InputError where it is none."""
    # An orientation tag is not followed: labels were drawn on the pixels as they are stored.
    return _decoded(path, _bytes(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def read_values(path: Path, palettes: bool = True) -> Image:
    """Read the values of a label file, uint8 [H,W]: a gray image's pixels, a palette PNG's indices.

    Raises InputError for a file that is neither, and for a palette where `palettes` is false.
    """
    data = _bytes(path)
    is_palette = _is_palette(data)
    if is_palette and palettes:
        return _decoded(path, _with_gray_palette(path, data), cv2.IMREAD_COLOR)[:, :, 0]
    values = _decoded(path, data, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2 or values.dtype != np.uint8:
        channels = 1 if values.ndim == 2 else values.shape[2]
        hint = (
            "it is a palette PNG: say which data set it belongs to, as in gta5:DIR or voc:DIR, or add a classes.yaml"
            if is_palette
            else "a label map is an 8-bit gray image whose pixels are class ids; convert it, or add a classes.yaml "
            "that says what its colours are"
        )
        raise ForeignLabel(f"{path} has {channels} channel(s) of {values.dtype}: {hint}.")
    return values


def read_wide_values(path: Path) -> NDArray[np.uint16]:
    """Read a gray image of 8 or 16 bits as uint16 [H,W]. Raises InputError for a file that is none."""
    values = _decoded(path, _bytes(path), cv2.IMREAD_UNCHANGED)
    if values.ndim != 2:
        raise InputError(f"{path} has {values.shape[2]} channels, and a gray image was expected: unpack it again.")
    return values.astype(np.uint16)


def gray_decoder(num_classes: int) -> Decode:
    """Values are class ids, 255 is ignored. Palettes are refused: their indices are seldom ids."""

    def decode(path: Path) -> Image:
        labels = read_values(path, palettes=False)
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:IGNORE])
        if present.size and present[-1] >= num_classes:
            raise ForeignLabel(
                f"{path} holds label {present[-1]}: labels of {num_classes} classes are 0 to {num_classes - 1}, "
                f"and {IGNORE} for pixels to ignore."
            )
        return labels

    return decode


def value_decoder(ids: Mapping[int, int], data_set: str) -> Decode:
    """Values are looked up in `ids`: value to class id, or to 255. Any other value raises ForeignLabel."""
    table = np.full(256, _UNKNOWN, np.uint8)
    for value, label in ids.items():
        table[value] = label

    def decode(path: Path) -> Image:
        values = read_values(path)
        labels: Image = table[values]
        if (labels == _UNKNOWN).any():
            value = int(values[labels == _UNKNOWN][0])
            raise ForeignLabel(f"{path} holds value {value}, which {data_set} does not have: {_known(ids)}.")
        return labels

    return decode


def colour_decoder(ids: Mapping[tuple[int, int, int], int], data_set: str) -> Decode:
    """Colours (red, green, blue) are looked up in `ids`. Any other colour raises ForeignLabel."""
    table = np.full(1 << 24, _UNKNOWN, np.uint8)  # 16 MB: a look-up a pixel, whatever the number of colours
    for (red, green, blue), label in ids.items():
        table[red << 16 | green << 8 | blue] = label

    def decode(path: Path) -> Image:
        bgr = _decoded(path, _bytes(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION).astype(np.int32)
        labels: Image = table[bgr[:, :, 2] << 16 | bgr[:, :, 1] << 8 | bgr[:, :, 0]]
        if (labels == _UNKNOWN).any():
            blue, green, red = (int(value) for value in bgr[labels == _UNKNOWN][0])
            pixels = int(np.count_nonzero(labels == _UNKNOWN))
            raise ForeignLabel(
                f"{path} has the colour ({red}, {green}, {blue}), red-green-blue, on one of {pixels} pixels that "
                f"{data_set} has no class for: a label image must not be resized smoothly or saved as JPEG."
            )
        return labels

    return decode


def _known(ids: Mapping[int, int]) -> str:
    values = sorted(set(ids) - {IGNORE})
    if values == list(range(values[0], values[-1] + 1)):
        return f"its values are {values[0]} to {values[-1]}"
    return f"its values are {', '.join(map(str, values[:40]))}"


def _bytes(path: Path) -> Image:
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


def _decoded(path: Path, data: Image, flags: int) -> Image:
    try:
        # Decoding from memory: imread would print its own complaint about the file on stderr.
        image: Any = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path} is not an image that can be decoded ({data.size} bytes): replace it or take it away.")
    out: Image = image
    return out


def _is_palette(data: Image) -> bool:
    head = data[:26].tobytes()
    return len(head) == 26 and head[:8] == _PNG and head[12:16] == b"IHDR" and head[25] == _PALETTE


def _with_gray_palette(path: Path, data: Image) -> Image:
    """The same PNG, but index i has the gray level i: OpenCV decodes colours, and so they are the indices.

    Two entries of a palette may have one colour (Cityscapes' pole and polegroup), so colours alone would not do.
    """
    ramp = bytes(value for index in range(256) for value in (index, index, index))
    header = data[16:29].tobytes()
    pieces = [_PNG, _chunk(b"IHDR", header), _chunk(b"PLTE", ramp[: 3 << header[8]])]
    pieces += [_chunk(kind, body) for kind, body in _chunks(path, data) if kind in (b"IDAT", b"IEND")]
    return np.frombuffer(b"".join(pieces), np.uint8)


def _chunks(path: Path, data: Image) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG, kind and contents, with their checksums tested."""
    at = len(_PNG)
    while at < data.size:
        if at + 12 > data.size:
            break
        length, kind = struct.unpack(">I4s", data[at : at + 8].tobytes())
        body = data[at + 8 : at + 8 + length].tobytes()
        check = data[at + 8 + length : at + 12 + length].tobytes()
        if len(check) < 4 or struct.unpack(">I", check)[0] != zlib.crc32(kind + body):
            break
        yield kind, body
        if kind == b"IEND":
            return
        at += 12 + length
    raise InputError(f"{path} is a damaged PNG (from byte {at} of {data.size} on): replace it or take it away.")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
