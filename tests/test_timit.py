"""TIMIT is found in whatever case, folder and copy it comes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from spoken import RATE, speech, write_sphere, write_timit

from sepfast import InputError
from sepfast.data.timit import find_timit

TONE = speech("f", 0.1)


@pytest.mark.parametrize(
    ("folder", "name", "root"),
    [
        ("TRAIN/DR1/FCJF0", "SA1.WAV", ""),
        ("train/dr1/fcjf0", "sa1.wav", ""),
        ("timit/TEST/DR1/FCJF0", "SA1.WAV", ""),
        ("a/b/data/TRAIN/DR1/FCJF0", "SA1.WAV", ""),
        ("DR1/FCJF0", "SA1.sph", ""),
        ("TRAIN/DR1/FCJF0", "SA1.WAV", "TRAIN"),
        ("TRAIN/DR1/FCJF0", "SA1.WAV", "TRAIN/DR1"),
    ],
)
def test_layouts(tmp_path, folder, name, root):
    path = write_sphere(tmp_path / folder / name, TONE)
    path.with_suffix(".TXT").write_text("0 46797 She had your dark suit")
    (found,), skipped = find_timit(tmp_path / root)
    assert skipped == []
    assert (found.dialect, found.speaker, found.name, found.sex) == (1, "FCJF0", "SA1", "f")
    assert found.clip.audio == path
    assert found.clip.samples == len(TONE)
    assert found.clip.key == str(path.relative_to(tmp_path / root).with_suffix(""))


def test_all_dialects_speakers_and_both_splits(tmp_path):
    write_timit(tmp_path, dialects=range(1, 9), speakers=1, seconds=0.01)
    write_timit(tmp_path, dialects=[8], speakers=2, sentences=1, seconds=0.01, split="TEST")
    found, skipped = find_timit(tmp_path)
    assert skipped == []
    assert len(found) == 8 * 2 * 2 + 2  # of two speakers of DR8, whoever is in both counts once
    assert {each.dialect for each in found} == set(range(1, 9))
    assert {each.sex for each in found if each.speaker.startswith("M")} == {"m"}
    assert [(e.dialect, e.speaker, e.name) for e in found] == sorted(
        (e.dialect, e.speaker, e.name) for e in found
    )
    some, _ = find_timit(tmp_path, dialects=(2, 3))
    assert some == [each for each in found if each.dialect in (2, 3)]


def test_of_copies_the_original_is_taken_if_it_reads(tmp_path):
    folder = tmp_path / "TRAIN/DR2/MABC0"
    for name in ("SA1", "SA2"):
        write_sphere(folder / f"{name}.WAV", TONE)
        soundfile.write(folder / f"{name}.WAV.wav", TONE, RATE)
    coding = "pcm,embedded-shorten-v2.00"
    write_sphere(folder / "SA2.WAV", TONE, coding=coding)
    shutil.copytree(folder, tmp_path / "again/train/dr2/mabc0")
    found, skipped = find_timit(tmp_path)
    assert [each.clip.audio.name for each in found] == ["SA1.WAV", "SA2.WAV.wav"]
    assert [each.clip.key.rpartition("/")[2] for each in found] == ["SA1", "SA2"]
    assert skipped == []


def test_what_cannot_be_used_is_skipped_with_its_reason(tmp_path):
    folder = tmp_path / "TRAIN/DR1/FCJF0"
    write_sphere(folder / "SA1.WAV", TONE)
    write_sphere(folder / "SA2.WAV", TONE, sample_count=10**6)
    write_sphere(folder / ".SA3.WAV", TONE)
    write_sphere(tmp_path / "TRAIN/DR1/NOBODY/SA1.WAV", TONE)
    write_sphere(tmp_path / "TRAIN/DR9/FCJF0/SA1.WAV", TONE)
    told: list[tuple[int, int]] = []
    found, skipped = find_timit(tmp_path, progress=lambda *at: told.append(at))
    assert [each.clip.key for each in found] == ["TRAIN/DR1/FCJF0/SA1"]
    assert len(skipped) == 2
    assert skipped[0].endswith("NOBODY is no speaker's, takes a name with F or M first")
    assert "SA2.WAV: is truncated" in skipped[1]
    assert told == [(1, 2), (2, 2)]


def test_where_there_is_nothing_it_is_said_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        find_timit(tmp_path / "none")
    with pytest.raises(InputError, match=r"no utterances of TIMIT; looked for DR1/SPEAKER"):
        find_timit(tmp_path)
    path: Path = write_sphere(tmp_path / "DR1/FCJF0/SA1.WAV", np.zeros(0, np.int16))
    with pytest.raises(InputError, match=rf"skipped 1, the first because {path}: holds no samples"):
        find_timit(tmp_path)
    with pytest.raises(InputError, match=r"no utterances of TIMIT of DR2, DR3; looked for"):
        find_timit(tmp_path, dialects=(3, 2))
