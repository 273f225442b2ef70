"""Which configuration a kernel gets, what there is no kernel for, and what precision demands."""

import json
import warnings

import pytest
import torch
from conftest import noise
from contract import launches

from sepfast import InputError, ops
from sepfast.kernels import tuning
from sepfast.ops import backend
from sepfast.ops._framing import framing_obstacle, kernel_obstacle
from sepfast.reference import Framing

CPU = torch.device("cpu")


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Takes (device, key, BLOCK) of what is shipped for the kernel "k"."""
    caches = (tuning._lookup, tuning._entries, tuning._device_name)

    def write(*entries):
        rows = [{"device": d, "key": key, "config": {"BLOCK": b}} for d, key, b in entries]
        (tmp_path / "k.json").write_text(json.dumps(rows))
        _clear(caches)

    monkeypatch.setattr(tuning, "_FOLDER", tmp_path)
    yield write
    _clear(caches)


def _clear(caches):
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def hopper(monkeypatch):
    """Any device is one of compute capability 9.0."""
    monkeypatch.setattr(tuning, "_device_name", lambda device: "cuda:90")


def _block(**key):
    return tuning.lookup("k", CPU, **key)["BLOCK"]


def test_the_nearest_ratio_wins(ship):
    ship(("any", {"n": 256}, 1), ("any", {"n": 512}, 2), ("any", {"n": 2048}, 3))
    assert [_block(n=n) for n in (256, 360, 364, 1100, 1000, 4000)] == [1, 1, 2, 3, 2, 3]


def test_ratios_of_several_numbers_add_up(ship):
    ship(("any", {"n": 100, "m": 100}, 1), ("any", {"n": 130, "m": 130}, 2))
    assert _block(n=120, m=100) == 1  # though 130 is nearer to 120
    assert _block(n=120, m=129) == 2
    assert _block(n=101) == 1  # a number that is not asked for decides nothing


def test_nothing_near_is_said_once(ship):
    ship(("any", {"n": 256}, 1), ("any", {"n": 512}, 2))
    with pytest.warns(UserWarning, match=r"k has no configuration tuned near \{'n': 1100\}"):
        assert _block(n=1100) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _block(n=1100) == 2
        assert _block(n=1024) == 2  # twice as much is near


def test_words_must_be_equal(ship):
    ship(("any", {"n": 256, "word": "a"}, 1), ("any", {"n": 4096, "word": "b"}, 2))
    assert _block(n=256, word="a") == 1
    with pytest.warns(UserWarning, match="no configuration tuned near"):
        assert _block(n=256, word="b") == 2
    with pytest.raises(KeyError, match=r"k: no configuration for \{'n': 256, 'word': 'c'\}"):
        _block(n=256, word="c")


def test_an_entry_without_a_word_is_for_all(ship):
    ship(("any", {"n": 256}, 1))
    assert _block(n=256, word="a") == 1
    assert tuning.has_config("k", CPU, n=256, word="a")


def test_entries_of_the_device_come_first(ship, hopper):
    ship(("any", {"n": 256}, 1), ("cuda", {"n": 256}, 2), ("cuda:90", {"n": 400}, 3))
    assert _block(n=256) == 3  # near, though not the nearest
    with pytest.warns(UserWarning, match="no configuration tuned near"):
        assert _block(n=1000) == 3


def test_entries_of_the_device_that_are_not_near_come_last(ship, hopper):
    ship(("cuda:90", {"n": 4096}, 1), ("any", {"n": 256}, 2))
    assert _block(n=256) == 2


def test_entries_of_other_devices_do_not_count(ship, hopper):
    ship(("cuda:80", {"n": 256}, 1), ("hip", {"n": 256}, 2), ("cpu", {"n": 256}, 3))
    with pytest.raises(KeyError):
        _block(n=256)
    assert not tuning.has_config("k", CPU, n=256)


def test_the_interpreter_takes_what_is_for_any_gpu(ship):
    ship(("cuda:90", {"n": 256}, 1))
    assert _block(n=256) == 1
    assert tuning.has_config("k", CPU, n=256)


def test_what_is_shipped_is_asked_exactly(ship):
    ship(("any", {"n": 256, "word": "a"}, 1))
    assert tuning.has_config("k", CPU, n=256, word="a")
    assert tuning.has_config("k", CPU, n=256)
    assert not tuning.has_config("k", CPU, n=512, word="a")
    assert not tuning.has_config("k", CPU, n=256, word="b")


@pytest.mark.parametrize("n_fft", [15, 128, 255, 1000, 8192])
def test_there_are_no_kernels_for_other_transforms(n_fft):
    reason = framing_obstacle(Framing(n_fft, 4))
    assert reason == f"as n_fft {n_fft} is no power of two from 256 to 4096"
    assert kernel_obstacle(Framing(n_fft, 4), CPU, "sepfast_stft_forward") == reason


@pytest.mark.parametrize("n_fft", [256, 512, 1024, 2048, 4096])
def test_there_are_kernels_for_powers_of_two(n_fft):
    assert framing_obstacle(Framing(n_fft, 4)) is None


@pytest.fixture
def _precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_precision")
def test_what_precision_is_demanded_decides_what_is_shipped(ship):
    ship(("any", {"n_fft": 256, "precision": "tf32", "levels": "gain"}, 1))
    torch.set_float32_matmul_precision("high")
    assert kernel_obstacle(Framing(256), CPU, "k", levels="gain") is None
    sentence = "as k is not shipped for n_fft 256, precision 'tf32', levels 'none'"
    assert kernel_obstacle(Framing(256), CPU, "k", levels="none") == sentence
    torch.set_float32_matmul_precision("highest")
    sentence = "as k is not shipped for n_fft 256, precision 'tf32x3', levels 'gain'"
    assert kernel_obstacle(Framing(256), CPU, "k", levels="gain") == sentence


OPERATORS = {
    "stft": lambda x, f: ops.stft(x, f),
    "istft": lambda x, f: ops.istft(torch.zeros(3, f.bins, 2).to(x), f, 9),
    "stft_magnitude": lambda x, f: ops.stft_magnitude(x, f),
    "masked_istft": lambda x, f: ops.masked_istft(
        x.new_zeros(2, 1, f.frames(40), f.bins), x[None], f
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("n_fft", [15, 1000])
def test_demanded_kernels_that_do_not_exist_are_an_error_with_the_reason(kernels, name, n_fft):
    x = kernels.put(noise(40))
    with pytest.raises(InputError) as refusal:
        OPERATORS[name](x, Framing(n_fft, 4))
    assert str(refusal.value) == (
        f"{name}: backend 'triton' cannot run it, as n_fft {n_fft} is no power of two from 256 "
        "to 4096"
    )


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("n_fft", [15, 1000])
def test_without_demand_pytorch_runs_what_has_no_kernel(name, n_fft, monkeypatch):
    """As on a GPU: where "auto" would run kernels, if there were one."""
    asked = []

    def on_a_gpu(operator, device, obstacle):
        asked.append(obstacle)
        return backend.kernel_runs(operator, torch.device("cuda"), obstacle)

    monkeypatch.setattr("sepfast.ops._operator.kernel_runs", on_a_gpu)
    x, framing = noise(40).float(), Framing(n_fft, 4)
    with launches() as launched:
        out = OPERATORS[name](x, framing)
    assert asked == [f"as n_fft {n_fft} is no power of two from 256 to 4096"]
    assert launched == []
    assert torch.equal(out, OPERATORS[name](x, framing))


@pytest.mark.parametrize(("demand", "products"), [("high", "tf32"), ("medium", "tf32")])
@pytest.mark.parametrize("name", OPERATORS)
def test_precision_changes_what_is_launched(kernels, name, demand, products):
    found = []
    for each in ("highest", demand):
        torch.set_float32_matmul_precision(each)
        with launches() as launched:
            OPERATORS[name](kernels.put(noise(40)), Framing(256, 64))
        found += [launch.constants["PRECISION"] for launch in launched]
    assert found in (["tf32x3", products], ["ieee", products], ["ieee", "ieee"])


@pytest.mark.parametrize(
    ("total", "lines", "most", "processors", "blocks"),
    [
        (17, 1, 32, 1, 17),  # one after the other: nothing is repeated
        (17, 1, 8, 1, 6),  # three walks, the last a block shorter
        (17, 32, 32, 132, 5),  # 128 programs, all at a time
        (17, 1, 32, 132, 1),  # a processor for each
        (0, 4, 32, 132, 1),
    ],
)
def test_walks_keep_the_busiest_processor_shortest(total, lines, most, processors, blocks):
    assert tuning.walk_length(total, lines, most, processors) == blocks
