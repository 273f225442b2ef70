"""Peak memory of the STFT and back at a hop of 16, ours against PyTorch's own; Linux.

    python -m sepfast.bench.stft_memory --seconds 2 60 600

Each is measured in a process of its own, as the most that was resident above what was before the
first call. `stft` is the spectrum and its inverse; `separation` what a model is fed with and gives
back, magnitudes raised to 0.7 and shares of them to samples, by a model that changes nothing.
`outputs` are the bytes that the results take, which is what no program goes below, on a GPU either.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sepfast import ops
from sepfast.reference import FRAMINGS, Framing

_POWER = 0.7
_FRAMING = FRAMINGS["style-transfer"]
_RATE = 16000
_CHILD = "from sepfast.bench.stft_memory import measured; print(measured({!r}, {!r}, {!r}))"


def _ours(x: Tensor) -> None:
    ops.istft(ops.stft(x, _FRAMING), _FRAMING, x.shape[-1])


def _ours_separation(x: Tensor) -> None:
    shares = ops.stft_magnitude(x, _FRAMING, power=_POWER)
    ops.masked_istft(shares[None], x, _FRAMING)


def _torch(x: Tensor) -> None:
    _back(_spectrum(x), x.shape[-1])


def _torch_separation(x: Tensor) -> None:
    spectrum = _spectrum(x)
    shares = spectrum.abs().pow_(_POWER)
    _back(spectrum.mul_(shares), x.shape[-1])


def _spectrum(x: Tensor) -> Tensor:
    window, f = _FRAMING.window_on(x), _FRAMING
    return torch.stft(x, f.n_fft, f.hop, window=window, pad_mode="constant", return_complex=True)


def _back(spectrum: Tensor, samples: int) -> Tensor:
    window = _FRAMING.window_on(spectrum.real)
    return torch.istft(spectrum, _FRAMING.n_fft, _FRAMING.hop, window=window, length=samples)


_SIDES: dict[tuple[str, str], Callable[[Tensor], None]] = {
    ("stft", "ours"): _ours,
    ("stft", "torch"): _torch,
    ("separation", "ours"): _ours_separation,
    ("separation", "torch"): _torch_separation,
}


def outputs(pair: str, samples: int, framing: Framing = _FRAMING) -> int:
    """Bytes of the results of a pair, one channel, float32."""
    numbers = framing.frames(samples) * framing.bins * (2 if pair == "stft" else 1)
    return 4 * (numbers + samples)


def measured(pair: str, side: str, samples: int) -> float:
    """Peak resident bytes of this process above its start, of one call; NaN where memory ends."""
    call, x = _SIDES[pair, side], torch.randn(1, samples)
    call(x[:, :4000])
    _limit()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    try:
        with torch.no_grad():
            call(x)
    except RuntimeError:
        return float("nan")
    return _status("VmHWM") - before


def _limit() -> None:
    """No more than is available, so that too much is an error and not the end of others."""
    total = _status("VmSize") + _bytes_in("meminfo", "MemAvailable") - (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (total, total))


def _status(name: str) -> int:
    return _bytes_in("self/status", name)


def _bytes_in(file: str, name: str) -> int:
    """Bytes of a line of a file in /proc."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc", file).read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def peak(pair: str, side: str, samples: int) -> float:
    """`measured` in a process of its own."""
    command = [sys.executable, "-c", _CHILD.format(pair, side, samples)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; the process's own by default.

    Returns:
        0.

    Raises:
        SystemExit: 2, for arguments that it does not take.
    """
    parser = argparse.ArgumentParser("python -m sepfast.bench.stft_memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.0, 60.0])
    parser.add_argument("--sides", nargs="+", default=["ours", "torch"], choices=["ours", "torch"])
    given = parser.parse_args(arguments)
    if min(given.seconds) < 0.25:
        parser.error(f"--seconds: got {min(given.seconds):g}, takes 0.25 or more")
    heads = "".join(f"{name:>15}" for name in ("outputs", *given.sides))
    print(f"{'pair':12}{'seconds':>9}{heads}")
    for pair in ("stft", "separation"):
        for seconds in given.seconds:
            samples = round(seconds * _RATE)
            sizes = [outputs(pair, samples), *(peak(pair, s, samples) for s in given.sides)]
            columns = "".join(f"{size / 1e6:12,.1f} MB" for size in sizes)
            print(f"{pair:12}{seconds:9g}{columns}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
