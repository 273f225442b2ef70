"""Statistics are made once: what they are known by, and what becomes of a broken file."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import SMALL, STEREO, folder_of
from test_examples import FRAMING, noise
from test_song_audio import noise as waves
from test_song_audio import record

from sepfast import load
from sepfast.data import SongAudio, find_songs, write
from sepfast.data.examples import statistics
from sepfast.data.kept_statistics import kept_statistics
from sepfast.reference import FRAMINGS
from sepfast.training import train_folder
from sepfast.training.history import Silent

RATE = 8000

pytestmark = pytest.mark.usefixtures("one_thread")


class Told:
    """Counts reads of songs, and keeps what is said."""

    def __init__(self, monkeypatch) -> None:
        self.reads, self.notes, self.progress = 0, [], []
        plain = SongAudio.read

        def read(song, start, stop):
            self.reads += 1
            return plain(song, start, stop)

        monkeypatch.setattr(SongAudio, "read", read)

    def made(self, songs, cache, framing=FRAMING) -> torch.Tensor:
        """Both statistics, and what was told since the last ones."""
        self.reads, self.notes, self.progress = 0, [], []
        found = kept_statistics(
            songs,
            framing,
            cache_dir=cache,
            progress=lambda *done: self.progress.append(done),
            note=self.notes.append,
        )
        return torch.stack(found)


@pytest.fixture
def told(monkeypatch) -> Told:
    return Told(monkeypatch)


@pytest.fixture
def data(tmp_path) -> Path:
    for name in ("a", "b"):
        record(tmp_path / "data" / name)
    return tmp_path / "data"


def opened(data: Path, **changes) -> list[SongAudio]:
    options = {"sample_rate": RATE, "channels": 2, "cache_dir": data.parent / "cache", **changes}
    return [SongAudio(song, **options) for song in find_songs(data)[0]]


def files(cache: Path) -> list[Path]:
    return sorted((cache / "statistics").iterdir())


def test_a_second_time_the_songs_are_not_read(told, data, tmp_path):
    first = told.made(opened(data), tmp_path / "cache")
    assert told.reads > 0
    assert torch.equal(first, torch.stack(statistics(opened(data), FRAMING)))
    frames = 2 * FRAMING.frames(RATE)
    assert told.progress[-1] == (frames, frames)
    for songs in (opened(data), opened(data)[::-1]):
        assert torch.equal(told.made(songs, tmp_path / "cache"), first)
        assert (told.reads, told.notes, told.progress) == (0, [], [(frames, frames)])
    assert len(files(tmp_path / "cache")) == 1


def test_they_are_known_by_all_that_they_depend_on(told, data, tmp_path):
    cache, summed = tmp_path / "cache", tmp_path / "summed"
    record(summed / "a", mixture=False)
    cases = [
        (opened(summed, sources=("bass", "drums")), FRAMING),
        (opened(summed, sources=("drums", "bass")), FRAMING),
        (opened(data), FRAMING),
        (opened(data), FRAMINGS["deepconvsep-512"]),
        (opened(data)[:1], FRAMING),
        (opened(data, channels=1), FRAMING),
        (opened(data, sources=("bass", "drums")), FRAMING),
        (opened(data, sources=("drums", "bass")), FRAMING),
        (opened(data, sample_rate=RATE // 2), FRAMING),
        (opened(data, stop=0.5), FRAMING),
        (opened(data, start=0.5), FRAMING),
    ]
    found = []
    for songs, framing in cases:
        found.append(told.made(songs, cache, framing))
        assert told.reads > 0
    assert len(files(cache)) == len(cases)
    for (songs, framing), first in zip(cases, found, strict=True):
        assert torch.equal(told.made(songs, cache, framing), first)
        assert told.reads == 0


@pytest.mark.parametrize("same", ["size", "time"])
def test_a_song_that_changes_is_measured_anew(told, data, tmp_path, same):
    first, path = told.made(opened(data), tmp_path / "cache"), data / "b" / "bass.wav"
    before = path.stat()
    subtype = "float" if same == "size" else "int16"
    write(path, 3 * waves(RATE, seed=77), RATE, subtype=subtype)
    os.utime(path, ns=(1, 1) if same == "size" else (before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size == before.st_size) is (same == "size")
    again = told.made(opened(data), tmp_path / "cache")
    assert told.reads > 0
    assert not torch.equal(again, first)


@pytest.mark.parametrize("damage", ["empty", "half", "junk", "shape", "type", "nan", "names"])
def test_a_broken_file_is_made_anew_with_a_note(told, data, tmp_path, damage):
    first = told.made(opened(data), tmp_path / "cache")
    (path,) = files(tmp_path / "cache")
    content, (low, high) = path.read_bytes(), first.numpy()
    broken = {"empty": b"", "half": content[: len(content) // 2], "junk": b"junk" * 999}
    arrays = {
        "shape": {"minimum": low[:, :9], "maximum": high[:, :9]},
        "type": {"minimum": low.astype(float), "maximum": high.astype(float)},
        "nan": {"minimum": low, "maximum": high * np.nan},
        "names": {"minimum": low},
    }
    if damage in broken:
        path.write_bytes(broken[damage])
    else:
        np.savez(path, **arrays[damage])
    assert torch.equal(told.made(opened(data), tmp_path / "cache"), first)
    assert told.reads > 0
    (note,) = told.notes
    assert str(path) in note
    assert "made anew" in note
    told.made(opened(data), tmp_path / "cache")
    assert (told.reads, told.notes) == (0, [])


def test_without_a_place_to_keep_them_they_are_made_all_the_same(told, data, tmp_path):
    (tmp_path / "file").write_text("a file, not a folder")
    found = told.made(opened(data), tmp_path / "file")
    assert torch.equal(found, torch.stack(statistics(opened(data), FRAMING)))
    (note,) = told.notes
    assert "cannot be kept" in note


def test_songs_that_are_in_no_file_are_not_kept(told, tmp_path):
    song = noise(5000)
    assert torch.equal(
        told.made([song], tmp_path / "cache"), torch.stack(statistics([song], FRAMING))
    )
    assert not (tmp_path / "cache").exists()


def test_a_second_run_on_the_same_songs_begins_with_what_the_first_has_found(monkeypatch, tmp_path):
    class Report(Silent):
        def __init__(self):
            self.measured = []

        def progress(self, task, done, total):
            if task == "statistics":
                self.measured.append((done, total))

    data, reports = folder_of(tmp_path / "data", 2), []
    for name in ("first", "second"):
        reports.append(Report())
        train_folder(
            data,
            tmp_path / name,
            "deepconvsep-stereo",
            replace(STEREO, epochs=1, batches_per_epoch=1),
            model_options=SMALL,
            cache_dir=tmp_path / "cache",
            report=reports[-1],
        )
        monkeypatch.setattr("sepfast.data.kept_statistics.statistics", None)  # must not be called
    assert reports[0].measured[-1] == reports[1].measured[-1]
    assert len(reports[1].measured) == 1
    first, second = (load(tmp_path / name / "best.safetensors") for name in ("first", "second"))
    assert torch.equal(first.maximum, second.maximum)
    assert torch.equal(first.minimum, second.minimum)
