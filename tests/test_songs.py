"""Songs with stems: every layout is found."""

from pathlib import Path

import pytest

from sepfast.data import SOURCES, Song, Track, find_songs
from sepfast.errors import InputError

RATE = 8000


def touch(root: Path, *names: str) -> Path:
    """Empty files: finding songs looks at names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def stems_of(folder: str, *names: str, suffix: str = ".wav") -> list[str]:
    return [f"{folder}/{name}{suffix}" for name in (names or SOURCES)]


def only_song(root: Path) -> Song:
    (song,), skipped = find_songs(root)
    assert skipped == []
    return song


def names_and_splits(songs: list[Song]) -> list[tuple[str, str | None]]:
    return [(song.name, song.split) for song in songs]


def test_musdb18(tmp_path):
    touch(tmp_path, "train/B - Song.stem.mp4", "train/A.stem.mp4", "test/C.stem.mp4")
    songs, skipped = find_songs(tmp_path)
    assert skipped == []
    assert names_and_splits(songs) == [("A", "train"), ("B - Song", "train"), ("C", "test")]
    path = tmp_path / "train/A.stem.mp4"
    assert songs[0].mixture == Track(path, 0)
    assert songs[0].stems == {
        "drums": Track(path, 1),
        "bass": Track(path, 2),
        "other": Track(path, 3),
        "vocals": Track(path, 4),
    }
    assert names_and_splits(find_songs(tmp_path, split="test")[0]) == [("C", "test")]


def test_a_folder_of_stem_files_and_one_alone(tmp_path):
    touch(tmp_path, "A.stem.mp4", "B.stem.mp4")
    assert names_and_splits(find_songs(tmp_path)[0]) == [("A", None), ("B", None)]
    assert names_and_splits(find_songs(tmp_path / "B.stem.mp4")[0]) == [("B", None)]


def test_musdb18_hq(tmp_path):
    touch(tmp_path, *stems_of("train/Z", "mixture", *SOURCES), *stems_of("test/Y", *SOURCES))
    songs, _ = find_songs(str(tmp_path))
    assert names_and_splits(songs) == [("Y", "test"), ("Z", "train")]
    assert songs[1].mixture == Track(tmp_path / "train/Z/mixture.wav")
    assert songs[1].stems["bass"] == Track(tmp_path / "train/Z/bass.wav")
    assert songs[0].mixture is None


def test_dsd100(tmp_path):
    for part, name in (("Dev", "051 - A"), ("Test", "001 - B")):
        touch(tmp_path, f"Mixtures/{part}/{name}/mixture.wav")
        touch(tmp_path, *stems_of(f"Sources/{part}/{name}"))
    touch(tmp_path, "Mixtures/Dev/052 - C/mixture.wav")
    songs, skipped = find_songs(tmp_path)
    assert names_and_splits(songs) == [("001 - B", "test"), ("051 - A", "train")]
    assert songs[1].mixture == Track(tmp_path / "Mixtures/Dev/051 - A/mixture.wav")
    assert songs[1].stems["vocals"] == Track(tmp_path / "Sources/Dev/051 - A/vocals.wav")
    folder = tmp_path / "Sources/Dev/052 - C"
    assert skipped == [f"{folder} has no vocals, drums, bass, other"]
    assert names_and_splits(find_songs(tmp_path, split="train")[0]) == [("051 - A", "train")]
    assert find_songs(tmp_path, split="test")[1] == []


def test_folders_of_any_kind(tmp_path):
    touch(tmp_path, *stems_of("b"), *stems_of("a", suffix=".flac"), "a/mixture.flac")
    touch(tmp_path, "notes/read me.txt", "cover.jpg")
    songs, skipped = find_songs(tmp_path)
    assert names_and_splits(songs) == [("a", None), ("b", None)]
    assert songs[0].mixture == Track(tmp_path / "a/mixture.flac")
    assert skipped == []


def test_a_song_alone(tmp_path, monkeypatch):
    touch(tmp_path, *stems_of("My Song"))
    assert names_and_splits(find_songs(tmp_path / "My Song")[0]) == [("My Song", None)]
    monkeypatch.chdir(tmp_path / "My Song")
    assert only_song(Path(".")).name == "My Song"


def test_hidden_files_are_not_seen(tmp_path):
    touch(tmp_path, "A.stem.mp4", "._A.stem.mp4", *stems_of(".trash"))
    assert names_and_splits(find_songs(tmp_path)[0]) == [("A", None)]


def test_songs_without_some_stems_are_skipped_with_a_reason(tmp_path):
    touch(tmp_path, *stems_of("a"), *stems_of("b", "mixture", "vocals", "bass"))
    touch(tmp_path, *stems_of("c", "mixture"))
    songs, skipped = find_songs(tmp_path)
    assert names_and_splits(songs) == [("a", None)]
    assert skipped == [
        f"{tmp_path / 'b'} has no drums, other",
        f"{tmp_path / 'c'} has no vocals, drums, bass, other",
    ]


def test_a_song_that_is_there_twice_is_one(tmp_path):
    touch(tmp_path, *stems_of("train/A"), "train/A.stem.mp4", "test/A.stem.mp4")
    songs, skipped = find_songs(tmp_path)
    assert names_and_splits(songs) == [("A", "test"), ("A", "train")]
    assert songs[1].stems["vocals"].path.suffix == ".wav"
    assert skipped == [f"{tmp_path / 'train/A.stem.mp4'} is the song A once more"]


def test_other_sources(tmp_path):
    touch(tmp_path, *stems_of("duo", "piano", "violin"), *stems_of("voice", "vocals"))
    touch(tmp_path, *stems_of("band", "vocals", "drums"), "A.stem.mp4")
    songs, skipped = find_songs(tmp_path, sources=("piano", "violin"))
    assert [(song.name, list(song.stems)) for song in songs] == [("duo", ["piano", "violin"])]
    assert f"{tmp_path / 'A.stem.mp4'} has no piano, violin" in skipped
    # A mixture that is a sum takes all stems that are there, asked for or not.
    songs, skipped = find_songs(tmp_path, sources=("vocals",))
    assert [song.name for song in songs] == ["A", "band"]
    assert list(songs[1].stems) == ["vocals", "drums"]
    assert skipped == [f"{tmp_path / 'voice'} has no mixture, and only one stem to sum"]


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        ([], None, r"holds no songs; looked for SONG\.stem\.mp4, SONG/\{vocals,drums,bass,other\}"),
        (["a.txt", "b/song.mp3"], None, "holds no songs; looked for"),
        (["train/A.stem.mp4"], "test", "holds no test songs"),
        (["A.stem.mp4"], "train", "holds no train songs"),
        (["a/vocals.wav"], None, "skipped 1, the first because .*a has no drums, bass, other"),
        (["A.stem.mp4"], "valid", "split: got 'valid', takes 'train', 'test' or None"),
    ],
)
def test_nothing_found(tmp_path, files, split, message):
    with pytest.raises(InputError, match=message):
        find_songs(touch(tmp_path, *files), split=split)


def test_roots_that_are_none(tmp_path):
    with pytest.raises(InputError, match="there is no such file or folder"):
        find_songs(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"song\.wav is not a \.stem\.mp4 file"):
        find_songs(touch(tmp_path, "song.wav") / "song.wav")
