"""Published checkpoints: read safely, and separating as the published program does."""

import h5py
import numpy as np
import pytest
import torch

from sepfast import InputError, Separator
from sepfast.bench.published import covered_samples
from sepfast.bench.published import separate as published
from sepfast.importers import _names, import_pytorchconvsep


@pytest.fixture
def files(tmp_path, stereo_model):
    """A state_dict and statistics of the published layout, with the names it has there."""
    ours = stereo_model.state_dict()
    weights = {theirs: ours[name].clone() for theirs, name in _names().items()}
    torch.save(weights, tmp_path / "model.pt")
    with h5py.File(tmp_path / "stats.hdf5", "w") as file:
        file["feats_maximus"] = stereo_model.maximum.numpy()
        file["feats_minimus"] = stereo_model.minimum.numpy()
    return tmp_path / "model.pt", tmp_path / "stats.hdf5"


def test_names_are_the_published_ones():
    names = set(_names())
    assert len(names) == 30
    assert {"encoder.0.weight", "layer_first.0.bias", "layer_voice.0.weight"} <= names
    assert {"decode_bass.0.bias", "decode_other.1.weight", "layer_drums.0.bias"} <= names
    assert _names()["decode_voice.1.weight"] == "decoder.vocals.1.weight"


@pytest.mark.parametrize("legacy", [False, True])
def test_imported_model_separates_as_published(files, stereo_model, mixture, legacy):
    checkpoint, statistics = files
    if legacy:  # the format of PyTorch before 1.6, in which the published file is
        weights = torch.load(checkpoint, weights_only=True)
        torch.save(weights, checkpoint, _use_new_zipfile_serialization=False)
    model = import_pytorchconvsep(checkpoint, statistics)
    for name, value in stereo_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    excerpt = mixture[:, :40_000]
    expected = published(stereo_model, excerpt.astype(np.float64))
    out = torch.stack(list(Separator(model)(excerpt, 44100).values())).numpy()
    covered = covered_samples(40_000)
    assert np.abs(out - expected)[..., :covered].max() < 1e-6 * np.abs(expected).max()


class Evil:
    """Would make a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_is_run(files, tmp_path):
    checkpoint, statistics = files
    torch.save({"encoder.0.weight": Evil(tmp_path / "harm")}, checkpoint)
    with pytest.raises(InputError, match="is no plain state_dict"):
        import_pytorchconvsep(checkpoint, statistics)
    assert not (tmp_path / "harm").exists()


def _edit(path, change):
    weights = torch.load(path, weights_only=True)
    change(weights)
    torch.save(weights, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layer_bass.0.bias"), "of another model, it lacks layer_bass.0.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "of another model, it has extra besides"),
        (lambda w: w.update({"encoder.0.weight": torch.zeros(3)}), "are no convolutions"),
        (lambda w: w.update({"decode_bass.0.bias": torch.zeros(3)}), "layers do not fit"),
        (lambda w: w.update({"encoder.0.bias": 3}), "takes a state_dict of tensors"),
    ],
)
def test_other_checkpoints_are_named(files, change, message):
    checkpoint, statistics = files
    _edit(checkpoint, change)
    with pytest.raises(InputError, match=message):
        import_pytorchconvsep(checkpoint, statistics)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_broken_checkpoints_are_named(files, content):
    checkpoint, statistics = files
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match=r"model\.pt: is") as error:
        import_pytorchconvsep(checkpoint, statistics)
    assert "\n" not in str(error.value)


def test_bad_statistics_are_named(files):
    checkpoint, statistics = files
    statistics.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"stats.hdf5: is broken or lacks feats_minimus"):
        import_pytorchconvsep(checkpoint, statistics)
    with h5py.File(statistics, "w") as file:
        file["feats_maximus"] = np.zeros((8, 513))
        file["feats_minimus"] = np.zeros((8, 513))
    with pytest.raises(InputError, match=r"shape \(8, 513\), takes \(10, 513\)"):
        import_pytorchconvsep(checkpoint, statistics)
    statistics.unlink()
    with pytest.raises(InputError, match="no such file"):
        import_pytorchconvsep(checkpoint, statistics)
