"""What a source's name means: a camera, a stream's URL, standard input or a file; and how it may be shown."""

import re
from pathlib import Path

from splitmerge.errors import InputError

__all__ = ["camera_of", "is_url", "masked", "url_of"]

SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "rtmp", "rtmps", "tcp", "srt")
"""What FFmpeg opens over a network and a camera or a sender speaks."""

ADDRESS = re.compile(r"\s*(\w[\w+.-]+):/+(.*)", re.DOTALL)
"""What looks like a URL, of any scheme and however ill written: it may hold a password. One letter is a drive's."""


def is_url(name: str) -> bool:
    """Whether `name` is, or was meant to be, a stream's address."""
    return bool(ADDRESS.match(name))


def url_of(name: str) -> str:
    """The address that `name` is. Raises InputError where its scheme is none that can be opened."""
    url = name.strip()
    if not url.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        raise InputError(
            f"{masked(name)} is no address that can be opened: begin it with {', '.join(f'{s}://' for s in SCHEMES)}, "
            "or with ./ where it is a file."
        )
    return url


def camera_of(name: str) -> int | str | None:
    """The camera that `name` means: its number, or its device file; None where it means none."""
    if re.fullmatch(r"[0-9]{1,3}", name):
        return int(name)
    return name if name.startswith("/dev/") and Path(name).is_char_device() else None


def masked(name: str) -> str:
    """A source's name without what may be secret in a URL: user and password before the host, and the query.

    Rather too much than too little: a password may hold an unescaped @ or /, so all up to the last @ goes; cameras
    take `?user=admin&pwd=...`, so the query goes; an @ after a ? may belong to a password with
    a ? in it, and then all goes.
    """
    match = ADDRESS.match(name)
    if not match:
        return name
    scheme, rest = match.groups()
    address, question, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}://***"
    _, at, host = address.rpartition("@")
    return scheme + "://" + ("***@" if at else "") + host + ("?***" if question else "")
