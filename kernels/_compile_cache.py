"""Results of the compile gate on disk, so that only what changed is compiled again."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepfast.errors import InputError
from sepfast.files import atomic
from sepfast.kernels._catalog import identity
from sepfast.kernels.compile_result import Result

if TYPE_CHECKING:
    from sepfast.kernels.launch import Entry

#: The oldest results beyond this many are dropped.
_KEPT = 20_000
#: New results after which what is new is written, should the run be killed.
_WRITTEN = 50


def cache_path() -> Path:
    """`sepfast/compile-check.json` in the user's cache folder."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return folder / "sepfast" / "compile-check.json"


class Cache:
    """Key -> result as a mapping, read once; written in between for those who cannot wait."""

    def __init__(self, results: dict[str, dict[str, Any]]) -> None:
        self.results = results
        self.fresh: dict[str, dict[str, Any]] = {}

    @classmethod
    def read(cls) -> Cache:
        """What is on disk; nothing where that cannot be used."""
        try:
            results = json.loads(cache_path().read_text())
        except (OSError, ValueError):
            results = {}
        return cls(results if isinstance(results, dict) else {})

    @staticmethod
    def key(entry: Entry, target: str) -> str:
        """Changes with everything that a result depends on."""
        import triton

        parts = (
            entry.function.cache_key,  # of the source of all functions it calls, too
            list(entry.signature.items()),
            entry.constants,
            entry.options,
            entry.dots,
            target,
            triton.__version__,
            _gate(),
        )
        return hashlib.sha256(identity(*parts).encode()).hexdigest()

    def get(self, key: str) -> Result | None:
        """The result of a key, None where there is none."""
        try:
            return Result(**self.results[key])
        except (KeyError, TypeError):
            return None

    def put(self, key: str, result: Result) -> None:
        """Keep a result; errors are not kept, as they may be the machine's."""
        if not result.error:
            self.fresh[key] = asdict(result)
            if len(self.fresh) % _WRITTEN == 0:
                self.write()

    def write(self) -> None:
        """Write what is new beside what others wrote meanwhile, where the folder allows it."""
        if not self.fresh:
            return
        results = Cache.read().results | self.fresh
        kept = dict(list(results.items())[-_KEPT:])
        with suppress(InputError, OSError), atomic(cache_path()) as path:
            path.write_text(json.dumps(kept))


@lru_cache(maxsize=1)
def _gate() -> str:
    """A hash of the gate itself, as a result is no better than how it was read."""
    names = ("compile_check.py", "compile_result.py", "machine_code.py", "targets.py")
    sources = (Path(__file__).with_name(name).read_bytes() for name in names)
    return hashlib.sha256(b"".join(sources)).hexdigest()
