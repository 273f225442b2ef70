"""Songs with stems: finding them in the layouts of the field.

Layouts, with S for the sources: MUSDB18, `{train,test}/SONG.stem.mp4`; MUSDB18-HQ,
`{train,test}/SONG/{mixture,S}.wav`; DSD100, `Mixtures/{Dev,Test}/SONG/mixture.wav` beside
`Sources/{Dev,Test}/SONG/S.wav`; and any `SONG/S.wav` or `.flac`, with or without a mixture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sepfast.data.decoders import SEEKABLE
from sepfast.data.usable import visible
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic, file_called

SOURCES = ("vocals", "drums", "bass", "other")

_MUSDB_SUFFIX = ".stem.mp4"
_MUSDB_STREAMS = {"vocals": 4, "drums": 1, "bass": 2, "other": 3}
_SPLITS = ("train", "test")
_DSD100_SPLITS = {"Dev": "train", "Test": "test"}


@dataclass(frozen=True)
class Track:
    """One audio stream of a file."""

    path: Path
    stream: int = 0

    def __str__(self) -> str:
        return f"{self.path}, stream {self.stream}" if self.stream else str(self.path)


@dataclass(frozen=True)
class Song:
    """A mixture and its stems.

    Attributes:
        name: the song's name, as its file or folder gives it.
        split: "train", "test", or None where the layout has no splits.
        mixture: the mixture; None where there is none, and it is the sum of `stems`.
        stems: the stems by their sources.
    """

    name: str
    split: str | None
    mixture: Track | None
    stems: Mapping[str, Track]

    def file_in(self, folder: Path, suffix: str) -> Path:
        """A file about the song: SONG with the suffix, in folder/SPLIT where there are splits."""
        return folder / (self.split or "") / f"{self.name}{suffix}"


def find_songs(
    root: PathLike, *, split: str | None = None, sources: Sequence[str] = SOURCES
) -> tuple[list[Song], list[str]]:
    """The songs beneath a folder, sorted by name, and for each one skipped the reason.

    Args:
        root: a data set in one of the layouts above, one song's folder, or one `.stem.mp4`.
        split: "train" or "test" for that part alone; None for all songs.
        sources: the stems that a song must have. Others of `SOURCES` are kept where they are
            there, so that a song without a mixture file is the sum of all of its stems.

    Only names are looked at; whether a file can be decoded shows when it is opened.

    Raises:
        InputError: `root` does not exist, or there is no usable song; it says what was looked for.
    """
    root = Path(root)
    if split not in (None, *_SPLITS):
        raise InputError(f"split: got {split!r}, takes 'train', 'test' or None")
    if not root.exists():
        raise InputError(f"{root}: there is no such file or folder")
    found = list(_candidates(root, split, tuple(sources)))
    songs = [song for song in found if isinstance(song, Song)]
    reasons = [reason for reason in found if isinstance(reason, str)]
    if not songs:
        raise InputError(_nothing_found(root, split, sources, reasons))
    return sorted(songs, key=lambda song: (song.name, song.split or "")), reasons


def find_songs_of(
    root: PathLike, split: str | None, *, sources: Sequence[str] = SOURCES
) -> tuple[list[Song], list[str]]:
    """The songs of a part of a data set, or of a list of names.

    Args:
        root: as of `find_songs`.
        split: "train", "test", None for all songs, or the path of a file with the name of a song
            in each line, as `write_names` writes it.
        sources: as of `find_songs`.

    Raises:
        InputError: as `find_songs` does, for a file that cannot be read, and for names that no
            song has.
    """
    if split in (None, *_SPLITS):
        return find_songs(root, split=split, sources=sources)
    assert split is not None
    if not Path(split).is_file():
        raise InputError(f"split: got {split!r}, takes train, test or a file of songs' names")
    try:
        names = set(Path(split).read_text("utf-8").splitlines()) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{split}: cannot be read, takes the name of a song a line") from error
    songs, reasons = find_songs(root, sources=sources)
    missing = sorted(names - {song.name for song in songs})
    if missing or not names:
        first = f", of which {missing[0]!r} is none" if missing else ""
        raise InputError(f"{split}: names {len(names)} songs{first} of {root}")
    return [song for song in songs if song.name in names], reasons


def write_names(path: PathLike, songs: Iterable[Song]) -> None:
    """Write the names of songs, each in a line of its own.

    Raises:
        InputError: where the file cannot be written.
    """
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{song.name}\n" for song in songs), "utf-8")


def _nothing_found(
    root: Path, split: str | None, sources: Sequence[str], reasons: Sequence[str]
) -> str:
    stems = "{" + ",".join(sources) + "}"
    kind = f"{split} songs" if split else "songs"
    first = f"; skipped {len(reasons)}, the first because {reasons[0]}" if reasons else ""
    return (
        f"{root}: holds no {kind}; looked for SONG{_MUSDB_SUFFIX}, SONG/{stems}.wav or .flac, "
        f"both also in train/ and test/, and Mixtures/ beside Sources/{first}"
    )


def _candidates(root: Path, split: str | None, sources: tuple[str, ...]) -> Iterator[Song | str]:
    """Every song beneath `root`, or the reason why it cannot be used."""
    if root.is_file():
        if split is None:
            yield _musdb_song(root, None, sources)
    elif (root / "Mixtures").is_dir() and (root / "Sources").is_dir():
        for folder, its_split in _DSD100_SPLITS.items():
            if split in (None, its_split):
                yield from _dsd100_songs(root, folder, its_split, sources)
    elif _is_song(root, sources):
        if split is None:
            yield _folder_song(root.resolve().name, None, root, root, sources)
    else:
        for part in (None, *_SPLITS):
            if split in (None, part):
                yield from _songs_in(root / part if part else root, part, sources)


def _songs_in(folder: Path, split: str | None, sources: tuple[str, ...]) -> Iterator[Song | str]:
    names = set()
    for entry in visible(folder):
        name = entry.name.removesuffix(_MUSDB_SUFFIX)
        if name != entry.name:
            found = _musdb_song(entry, split, sources)
        elif _is_song(entry, sources):
            found = _folder_song(name, split, entry, entry, sources)
        else:
            continue
        # Scores and pictures are kept by the name, and both could be trained on and held out.
        yield f"{entry} is the song {name} once more" if name in names else found
        if isinstance(found, Song):
            names.add(name)


def _dsd100_songs(
    root: Path, folder: str, split: str, sources: tuple[str, ...]
) -> Iterator[Song | str]:
    mixtures, stems = root / "Mixtures" / folder, root / "Sources" / folder
    names = {entry.name for entry in (*visible(mixtures), *visible(stems)) if entry.is_dir()}
    for name in sorted(names):
        yield _folder_song(name, split, mixtures / name, stems / name, sources)


def _musdb_song(path: Path, split: str | None, sources: tuple[str, ...]) -> Song | str:
    if not path.name.endswith(_MUSDB_SUFFIX):
        return f"{path} is not a {_MUSDB_SUFFIX} file"
    stems = {source: Track(path, stream) for source, stream in _MUSDB_STREAMS.items()}
    missing = [source for source in sources if source not in stems]
    if missing:
        return f"{path} has no {', '.join(missing)}"
    return Song(path.name.removesuffix(_MUSDB_SUFFIX), split, Track(path, 0), stems)


def _folder_song(
    name: str, split: str | None, mixture: Path, folder: Path, sources: tuple[str, ...]
) -> Song | str:
    """The song whose mixture and whose stems lie in two folders, mostly the same."""
    wanted = dict.fromkeys((*sources, *SOURCES))
    files = {source: file_called(folder, source, SEEKABLE) for source in wanted}
    stems = {source: Track(path) for source, path in files.items() if path}
    missing = [source for source in sources if source not in stems]
    if missing:
        return f"{folder} has no {', '.join(missing)}"
    whole = file_called(mixture, "mixture", SEEKABLE)
    if not whole and len(stems) < 2:
        return f"{folder} has no mixture, and only one stem to sum"
    return Song(name, split, Track(whole) if whole else None, stems)


def _is_song(folder: Path, sources: tuple[str, ...]) -> bool:
    """Whether a folder holds a mixture or any stem."""
    return any(file_called(folder, name, SEEKABLE) for name in ("mixture", *sources, *SOURCES))
