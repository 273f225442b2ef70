"""Arrays in files that are broken, or of another kind than they should be."""

import io
import zipfile

import numpy as np
import pytest
import torch
from test_examples import FRAMING, Memory, noise

from sepfast import InputError
from sepfast.data.arrays import read_array, read_arrays
from sepfast.data.kept_statistics import kept_statistics

VALUES = np.arange(40, dtype=np.float32)


def written(save, *arrays, **named) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def test_arrays_come_back_in_the_order_of_their_names(tmp_path):
    np.savez(tmp_path / "a.npz", mean=VALUES, other=VALUES[:3], deviation=-VALUES)
    deviation, mean = read_arrays(tmp_path / "a.npz", ("deviation", "mean"))
    np.testing.assert_array_equal(mean, VALUES)
    np.testing.assert_array_equal(deviation, -VALUES)
    np.save(tmp_path / "a.npy", VALUES)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), VALUES)


@pytest.mark.parametrize("kind", ["npy", "npz", "packed npz"])
def test_a_changed_byte_is_an_array_or_one_sentence(tmp_path, kind):
    saves = {"npy": np.save, "npz": np.savez, "packed npz": np.savez_compressed}
    whole, path = written(saves[kind], VALUES), tmp_path / "a"
    random = np.random.default_rng(0)
    refused = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= int(random.integers(1, 256))
        path.write_bytes(changed)
        try:
            found = read_array(path) if kind == "npy" else read_arrays(path, ["arr_0"])
        except InputError:
            refused += 1
        else:
            assert len(found)
    assert refused > 40


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(written(np.savez, VALUES))
    with pytest.raises(InputError, match=r"no \.npy file of numbers"):
        read_array(path)
    path.write_bytes(written(np.save, VALUES))
    with pytest.raises(InputError, match=r"no \.npz file of these arrays"):
        read_arrays(path, ["arr_0"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mean.npy", "no array")
    assert read_arrays(path, ["mean"])[0].shape == ()


class Known(Memory):
    """A song that says what its samples follow from."""

    def fingerprint(self) -> tuple[str, ...]:
        return ("known",)


def test_statistics_in_the_other_byte_order_are_made_anew(tmp_path):
    songs, notes = [Known(noise(5000).waveforms)], []
    first = kept_statistics(songs, FRAMING, cache_dir=tmp_path)
    (path,) = (tmp_path / "statistics").iterdir()
    swapped = [part.numpy().astype(">f4") for part in first]
    np.savez(path, minimum=swapped[0], maximum=swapped[1])
    again = kept_statistics(songs, FRAMING, cache_dir=tmp_path, note=notes.append)
    assert all(map(torch.equal, again, first))
    assert len(notes) == 1
    assert "made anew" in notes[0]
