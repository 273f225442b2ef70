"""The scores of targets taken out of mixtures, and the paper's figure of them."""

import csv
import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from sepfast import InputError
from sepfast.data.clips import SAMPLE_RATE as RATE
from sepfast.evaluation.transfer_plots import report_plot, transfer_medians, transfer_plots
from sepfast.evaluation.transfer_scores import (
    TransferReport,
    TransferScores,
    is_transfer_report,
    score_estimate,
    spread,
    transfer_table,
)

SAMPLES = 4400
BLUE, VERMILLION = (np.array(tint) / 255 for tint in ([178, 213, 232], [242, 207, 178]))


def sound(seed: int, place: int = 0, samples: int = SAMPLES) -> np.ndarray:
    """Noise of 900 samples in one of three places, further apart than BSS Eval's filters reach."""
    wave = np.zeros(samples)
    first = 50 + 1500 * place
    noise = np.random.default_rng(seed).standard_normal(900)
    wave[first : first + 900] = 0.1 * noise / np.sqrt(np.mean(noise**2))
    return wave


TARGET, REST, ARTIFACT = (sound(place, place) for place in range(3))
WAVEFORMS = np.stack([TARGET + REST, TARGET, REST]).astype(np.float32)


def report(*si_sdr: float, label: str = "udt", sar: float = 5.0) -> TransferReport:
    """A report of mixtures with such SI-SDR; SIR 6 dB above; the mixtures' 0, and SAR of 140."""
    nothing = {"si_sdr": 0.0, "sir": 0.0, "sar": 140.0}
    return TransferReport(
        label,
        [
            TransferScores(f"m{i}", nothing, {"si_sdr": s, "sir": s + 6, "sar": sar})
            for i, s in enumerate(si_sdr)
        ],
    )


@pytest.mark.parametrize("gain", [1.0, 0.01])
@pytest.mark.parametrize(("interference", "artifacts"), [(10.0, 20.0), (0.0, 6.0), (-3.0, -1.0)])
def test_scores_of_parts_that_no_filter_brings_together(interference, artifacts, gain):
    # All parts have the power of the target, so that each score is a sum of powers.
    powers = 10 ** (-interference / 10), 10 ** (-artifacts / 10)
    estimate = gain * (TARGET + math.sqrt(powers[0]) * REST + math.sqrt(powers[1]) * ARTIFACT)
    as_is, found = score_estimate(WAVEFORMS, estimate.astype(np.float32), RATE)
    assert found["si_sdr"] == pytest.approx(-10 * math.log10(sum(powers)), abs=1e-3)
    assert found["sir"] == pytest.approx(interference, abs=1e-3)
    assert found["sar"] == pytest.approx(artifacts + 10 * math.log10(1 + powers[0]), abs=1e-3)
    # The mixture is both sources as loud as each other, and nothing else.
    assert (as_is["si_sdr"], as_is["sir"]) == pytest.approx((0, 0), abs=1e-3)
    assert as_is["sar"] > 100


def test_a_filter_of_the_target_is_right_for_bss_eval_and_wrong_for_si_sdr():
    delayed = np.roll(TARGET, 300)
    found = score_estimate(WAVEFORMS, delayed.astype(np.float32), RATE)[1]
    assert found["sir"] > 100
    assert found["sar"] > 100
    assert found["si_sdr"] < -10
    too_late = np.roll(TARGET, 3000)  # by more than the 512 samples of the filters
    assert score_estimate(WAVEFORMS, too_late.astype(np.float32), RATE)[1]["sar"] < -30


def test_silence_has_no_score():
    silence = np.zeros(SAMPLES, np.float32)
    as_is, muted = score_estimate(WAVEFORMS, silence, RATE)
    assert muted["si_sdr"] == -math.inf
    assert math.isnan(muted["sir"])
    assert math.isnan(muted["sar"])
    assert all(math.isfinite(value) for value in as_is.values())
    mixture, target, rest = WAVEFORMS
    for scores in score_estimate(np.stack([rest, silence, rest]), mixture, RATE):
        assert all(math.isnan(value) for value in scores.values())
    alone = score_estimate(np.stack([target, target, silence]), target + 0.1 * rest, RATE)[1]
    assert math.isnan(alone["sir"])
    assert alone["si_sdr"] == pytest.approx(20, abs=1e-3)
    assert alone["sar"] == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize(
    ("waveforms", "estimate", "message"),
    [
        (WAVEFORMS, WAVEFORMS[0, 1:], r"estimate: got shape \(4399,\), takes \(4400,\)"),
        (WAVEFORMS, WAVEFORMS[:1], r"estimate: got shape \(1, 4400\)"),
        (WAVEFORMS[:2], WAVEFORMS[0], r"waveforms: got shape \(2, 4400\), takes \(3, samples\)"),
        (WAVEFORMS, np.full(SAMPLES, np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_what_cannot_be_scored(waveforms, estimate, message):
    with pytest.raises(InputError, match=message):
        score_estimate(waveforms, estimate, RATE)


def test_statistics():
    found = spread([4.0, math.nan, 1.0, 2.0, 3.0, 10.0])
    assert (found.mean, found.median, found.count) == (4, 3, 5)
    assert (found.lower_quartile, found.upper_quartile) == (2, 4)
    assert found.std == pytest.approx(math.sqrt(10))
    assert spread([math.nan]).count == 0
    assert math.isnan(spread([]).median)
    # A silent estimate counts as the worst there is.
    assert spread([-math.inf, 1.0, 2.0, 3.0, 4.0]).median == 2


def test_json_and_csv_hold_all_scores(tmp_path):
    written = report(7.0, 9.5, -math.inf, math.nan, math.inf)
    written.to_json(tmp_path / "a.json")
    read = TransferReport.from_json(tmp_path / "a.json")
    assert read.label == "udt"
    assert repr(read) == repr(written)  # NaN does not equal itself
    content = json.loads((tmp_path / "a.json").read_text())
    assert [m["estimate"]["si_sdr"] for m in content["mixtures"]] == [7, 9.5, "-inf", None, "inf"]
    entry = next(e for e in content["summary"] if (e["row"], e["score"]) == ("udt", "sir"))
    assert (entry["median"], entry["count"], entry["mixtures"]) == (14.25, 4, 5)
    written.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["mixture"], row["row"]) for row in rows[:3]] == [
        ("m0", "mixture"),
        ("m0", "udt"),
        ("m1", "mixture"),
    ]
    assert [row["si_sdr"] for row in rows[1::2]] == ["7", "9.5", "-inf", "", "inf"]
    assert is_transfer_report(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"format": "sepfast-scores", "songs": []}')
    for other in ("b.json", "a.csv", "none.json"):
        assert not is_transfer_report(tmp_path / other)
        with pytest.raises(InputError, match=r"holds no scores of targets|cannot be read"):
            TransferReport.from_json(tmp_path / other)
    with pytest.raises(InputError, match="label: got 'mixture'"):
        TransferReport("mixture")


def test_tables_show_medians_and_quartiles():
    found = transfer_table(report(7.0, 8.0, 10.0, math.nan))
    assert found.header == ["", "SI-SDR (dB)", "SIR (dB)", "SAR (dB)"]
    assert found.rows == [
        ["mixture", "0.00 (0.0, 0.0)", "0.00 (0.0, 0.0)", "> 100"],
        ["udt", "8.00 (7.5, 9.0), 3 of 4", "14.00 (13.5, 15.0), 3 of 4", "5.00 (5.0, 5.0)"],
    ]
    none = transfer_table(report(math.nan))
    assert none.rows[1][1] == "-"
    assert none.notes[0].startswith("1 mixture: ")
    # Beyond all numbers is only what a quarter of them does not stay below.
    assert transfer_table(report(80.0, 110.0, 120.0)).rows[1][1] == "110.00 (95.0, 115.0)"
    # What has no place in the figure has none in its medians.
    medians = transfer_medians({"a": report(7.0, 8.0, -math.inf), "b": report(3.0, sar=120.0)})
    assert medians.rows == [
        ("a", "7.50 (7.2, 7.8), 2 of 3", "13.50 (13.2, 13.8), 2 of 3", "5.00 (5.0, 5.0)"),
        ("b", "3.00 (3.0, 3.0)", "9.00 (9.0, 9.0)", "-"),
    ]
    assert "a 3, b 1" in medians.notes[0]


def boxes(path, tint: np.ndarray) -> list[int]:
    """Pixels of a tint in each third of a figure."""
    picture = imread(path)[..., :3]
    assert picture.shape == (580, 1400, 3)
    hit = (abs(picture - tint) < 0.01).all(-1)
    return [int(part.sum()) for part in np.array_split(hit, 3, axis=1)]


def test_figure_has_a_box_for_each_experiment_and_score(tmp_path):
    wide, narrow = report(2.0, 5.0, 9.0, 14.0), report(6.0, 7.5, 9.0, sar=130.0)
    reports = {"UDT train": wide, "UDT test": wide, "supervised": narrow}
    transfer_plots(reports, tmp_path / "a.png")
    wide_boxes, narrow_boxes = (boxes(tmp_path / "a.png", tint) for tint in (BLUE, VERMILLION))
    assert min(wide_boxes[:2]) > 5000
    assert min(narrow_boxes[:2]) > 500
    assert max(narrow_boxes[:2]) < min(wide_boxes[:2]) / 3
    assert narrow_boxes[2] == 0  # beyond what is drawn
    report_plot(wide, tmp_path / "one.png")
    pale = boxes(tmp_path / "one.png", BLUE)
    assert min(pale[:2]) > 5000
    many = {f"experiment {i}": report(i, i + 3.0, math.nan) for i in range(7)}
    transfer_plots(many, tmp_path / "many.png")
    assert 0 < boxes(tmp_path / "many.png", BLUE)[0] < wide_boxes[0]


@pytest.mark.parametrize(
    ("reports", "message"),
    [({}, "reports: got none"), ({"a": report(1.0), "b": report()}, "b: holds no mixtures")],
)
def test_what_cannot_be_drawn(reports, message, tmp_path):
    for refuse in (transfer_medians, lambda given: transfer_plots(given, tmp_path / "a.png")):
        with pytest.raises(InputError, match=message):
            refuse(reports)
    assert not list(tmp_path.iterdir())
