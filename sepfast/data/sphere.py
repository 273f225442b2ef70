"""NIST SPHERE files, which TIMIT's are: what their headers promise, checked before they are read.

A header is text, a line for each field: `NIST_1A`, the header's length in bytes, `name -type value`
and so on, `end_head`. libsndfile reads what follows, whatever the suffix of the file, but takes one
that ends early for a short one, and does not say that it is only the compression that it lacks.
"""

from __future__ import annotations

from pathlib import Path

from sepfast.errors import InputError

_MAGIC = b"NIST_1A"
#: The magic and the length of the header, each on a line of eight bytes.
_FIRST_LINES = 16


def check_sphere(path: Path) -> None:
    """Refuse a SPHERE file that is truncated or compressed; any other file is let through.

    Args:
        path: a file that can be opened.

    Raises:
        InputError: for such a file, with what can be done about it.
    """
    with path.open("rb") as file:
        first = file.read(_FIRST_LINES)
        size = first[len(_MAGIC) :].strip()
        if not first.startswith(_MAGIC) or not size.isdigit():
            return
        fields = _fields(file.read(max(0, int(size) - _FIRST_LINES)))
    _check_plain(path, fields.get("sample_coding", "pcm"))
    _check_whole(path, path.stat().st_size - int(size), fields)


def _fields(header: bytes) -> dict[str, str]:
    """The fields of a header by their names, as text."""
    lines = header.partition(b"end_head")[0].decode("latin-1").splitlines()
    split = (line.split(maxsplit=2) for line in lines)
    return {parts[0]: parts[2].strip() for parts in split if len(parts) == 3}


def _check_plain(path: Path, coding: str) -> None:
    compression = coding.partition("embedded-")[2]
    if compression:
        raise InputError(
            f"{path}: is NIST SPHERE compressed with {compression}, takes it uncompressed; convert "
            "it with NIST's w_decode or with sph2pipe"
        )


def _check_whole(path: Path, held: int, fields: dict[str, str]) -> None:
    counts = [fields.get(name, "") for name in ("sample_count", "channel_count", "sample_n_bytes")]
    if not all(count.isdecimal() for count in counts):
        return
    samples, channels, width = map(int, counts)
    promised = samples * channels * width
    if 0 <= held < promised:
        raise InputError(
            f"{path}: is truncated: {held:,} of {promised:,} bytes of samples are there"
        )
