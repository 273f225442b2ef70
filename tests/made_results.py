"""Made-up results for the tests of what reads them."""

from dataclasses import replace

from sepfast.bench.results import Report, Row

VERSIONS = {"python": "3.12", "torch": "2.11", "triton": None, "numpy": "2.0", "sepfast": "0.1"}

#: Ours at 2 ms; its spread is a tenth to either side, as are those of others.
ROW = Row(
    case="song/stft_magnitude", operator="stft_magnitude", side="ours", precision="highest",
    gradient=False, shapes={"waveform": [2, 1000]}, path="triton",
    kernels=["sepfast_stft_magnitude_forward"], rounds=20, p20_ms=1.8, p50_ms=2.0, p80_ms=2.2,
    host_ms=2.0, least_bytes=100, moved_bytes=120, requested_bytes=150, operations=1000,
    bound="memory", ceiling_percent=50.0, peak_bytes=10**9, error=1e-7, gradient_error=None,
    ratio_to_eager=2.0,
)  # fmt: skip


def timed(row: Row, factor: float = 1.0, **changed) -> Row:
    """A row whose times are so many times as long."""
    times = {name: factor * getattr(row, name) for name in ("p20_ms", "p50_ms", "p80_ms")}
    return replace(row, **times, **changed)


def report(*rows: Row, kind: str = "cuda", device: str = "GPU A", **parts) -> Report:
    """Results with rows, each case's eager among them at 4 ms unless it is given."""
    keys = {(row.case, row.precision, row.scale): row for row in rows}
    given = {(row.case, row.precision, row.scale) for row in rows if row.side == "eager"}
    eager = [
        replace(
            row, side="eager", path="pytorch", kernels=[], p20_ms=3.6, p50_ms=4.0, p80_ms=4.4,
            ratio_to_eager=1.0,
        )
        for key, row in keys.items()
        if key not in given
    ]  # fmt: skip
    environment = {
        "kind": kind, "device": device, "system": "Linux", "threads": 4, "versions": VERSIONS,
        "commit": None,
    }  # fmt: skip
    settings = {"minutes": 10.0, "quick": False, "only": "", "size": "full", "sweep": False}
    made = Report(environment, settings, rows=[*rows, *eager], complete=True)
    made.ceilings = {"copy": 1e12, "single": 1e14, "half": None}
    return replace(made, **parts)
