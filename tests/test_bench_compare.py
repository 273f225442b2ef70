"""`sepfast bench --compare`: what is told as slower, and what the noise hides."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import ROW, report, timed
from typer.testing import CliRunner

from sepfast.bench.compare import THRESHOLDS, compare_reports
from sepfast.cli.app import _app
from sepfast.errors import InputError

CPU = {"kind": "cpu", "device": "CPU A"}
ONE = report(ROW)
RUNNER = CliRunner()


def ours(before, after, **options):
    """How our own row changed."""
    found = compare_reports(before, after, **options)
    return next(each for each in found.changes if each.row.side == "ours")


class TestTimes:
    """On one GPU, by medians of time."""

    def test_noise_is_the_same(self):
        found = compare_reports(ONE, report(timed(ROW, 1.04)))
        assert {each.verdict for each in found.changes} == {"same"}
        assert found.by == "times"
        assert not any(each.grew for each in found.changes)
        assert found.slower == ()

    def test_what_is_slower_is_told(self):
        change = ours(ONE, report(timed(ROW, 1.3)))
        assert (change.verdict, change.before) == ("slower", 2.0)
        assert change.factor == pytest.approx(1.3)
        assert ours(report(timed(ROW, 1.3)), ONE).verdict == "faster"

    def test_what_is_within_the_spread_is_not_told(self):
        assert ours(ONE, report(replace(timed(ROW, 1.3), p20_ms=2.1))).verdict == "same"

    def test_what_is_below_the_threshold_is_not_told(self):
        exact = replace(ROW, p20_ms=2.0, p80_ms=2.0)
        assert ours(report(exact), report(timed(exact, 1.04))).verdict == "same"
        assert ours(report(exact), report(timed(exact, 1.06))).verdict == "slower"

    @given(st.floats(0.2, 5), st.floats(0, 0.4), st.floats(0, 0.4))
    def test_either_way_is_one_another(self, factor, below, above):
        later = timed(ROW, factor)
        later = replace(later, p20_ms=later.p50_ms * (1 - below), p80_ms=later.p50_ms * (1 + above))
        there, back = ours(ONE, report(later)), ours(report(later), ONE)
        assert there.factor * back.factor == pytest.approx(1)
        swapped = {"slower": "faster", "faster": "slower", "same": "same"}
        assert there.verdict == swapped[back.verdict]
        if there.verdict != "same":
            assert later.p20_ms > ROW.p80_ms or later.p80_ms < ROW.p20_ms
            assert max(there.factor, back.factor) > 1 + THRESHOLDS["times"]


class TestRatios:
    """On a CPU, by ratios to eager of the same run."""

    def test_a_slower_machine_is_no_slower_code(self):
        eager = timed(report(ROW).rows[1], 3)
        found = compare_reports(report(ROW, **CPU), report(timed(ROW, 3), eager, **CPU))
        assert found.by == "ratios"
        assert [(each.row.side, each.verdict) for each in found.changes] == [("ours", "same")]

    def test_what_is_slower_than_it_was_beside_eager_is_told(self):
        exact = replace(ROW, p20_ms=1.99, p80_ms=2.01)
        before = report(exact, replace(exact, side="eager", p20_ms=3.99, p50_ms=4, p80_ms=4.01))
        eager = timed(before.rows[1], 3)
        slow = report(timed(exact, 3 * 1.3), eager, **CPU)
        change = ours(replace(before, environment=slow.environment), slow)
        assert change.verdict == "slower"
        assert (change.before, change.after) == (2.0, pytest.approx(2 / 1.3))

    def test_spread_of_eager_counts(self):
        """1.3 times slower, and both sides' spreads a tenth: the ratios may be the same."""
        assert ours(report(ROW, **CPU), report(timed(ROW, 1.3), **CPU)).verdict == "same"

    def test_without_eager_nothing_is_told(self):
        other = replace(ROW, case="song/stft")
        alone = report(other, **CPU)
        alone.rows.append(ROW)
        found = compare_reports(report(ROW, other, **CPU), alone)
        assert found.apart == ("song/stft_magnitude, highest, ours: no eager beside it",)
        assert found.only_before == ("song/stft_magnitude, highest: eager",)


class TestOthers:
    def test_errors_and_memory_that_grew_are_told(self):
        worse = replace(ROW, error=1e-5, peak_bytes=2 * 10**9)
        change = ours(ONE, report(worse))
        assert change.verdict == "same"
        assert change.grew == ("error 1.0e-07 to 1.0e-05", "peak memory 1000 to 2000 MB")
        assert ours(report(worse), ONE).grew == ()
        assert ours(ONE, report(replace(ROW, error=1.2e-7, peak_bytes=10**9 + 5))).grew == ()

    def test_little_that_grew_is_not_told(self):
        """An error of less than rounding, a peak of less than 1 MB or 5 %."""
        few, more = (replace(ROW, error=e, peak_bytes=b) for e, b in ((1e-9, 1000), (9e-9, 10**6)))
        assert ours(report(few), report(more)).grew == ()
        assert ours(ONE, report(replace(ROW, peak_bytes=10**9 + 10**7))).grew == ()

    def test_devices_are_not_mixed(self):
        other = report(timed(ROW, 2), device="GPU B")
        with pytest.raises(InputError, match=r"got results of GPU A and of GPU B.*--across"):
            compare_reports(ONE, other)
        found = compare_reports(ONE, other, across=True)
        assert found.by == "ratios"
        assert [each.row.side for each in found.changes] == ["ours"]
        assert ours(ONE, report(replace(ROW, error=1.0), device="GPU B"), across=True).grew == ()

    def test_scales_shapes_and_sweeps_are_kept_apart(self):
        half = replace(ROW, scale=0.5)
        found = compare_reports(report(ROW, sweeps=[ROW]), report(ROW, sweeps=[half]))
        assert found.only_before == ("song/stft_magnitude, scale 1, highest: ours",)
        assert found.only_after == ("song/stft_magnitude, scale 0.5, highest: ours",)
        longer = report(replace(ROW, shapes={"waveform": [2, 2000]}), replace(ROW, case="a"))
        found = compare_reports(report(ROW, replace(ROW, case="a")), longer)
        assert "song/stft_magnitude, highest, ours: other shapes" in found.apart

    def test_nothing_in_common_is_refused(self):
        with pytest.raises(InputError, match="without a row in common"):
            compare_reports(ONE, report(replace(ROW, case="song/stft")))


class TestCommand:
    def run(self, tmp_path, *reports, options=()):
        paths = [tmp_path / f"{index}.json" for index in range(len(reports))]
        for path, each in zip(paths, reports, strict=True):
            each.write(path)
        return RUNNER.invoke(_app(), ["bench", "--compare", *options, *map(str, paths)])

    def test_slower_fails(self, tmp_path):
        done = self.run(tmp_path, ONE, report(timed(ROW, 1.3)))
        assert done.exit_code == 1
        assert "1.30 times slower" in done.output
        assert "1 slower, 0 faster, 1 same" in done.output

    def test_faster_and_a_slower_yardstick_pass(self, tmp_path):
        eager = timed(ONE.rows[1], 2)
        done = self.run(tmp_path, ONE, report(timed(ROW, 0.5), eager))
        assert done.exit_code == 0
        assert "1 slower, 1 faster" in done.output
        assert "of ours 0 got slower" in done.output

    def test_what_it_does_not_take(self, tmp_path):
        for reports, options, message in (
            ([ONE], (), "takes two, before and after"),
            ([ONE, report(ROW, device="GPU B")], (), "takes those of one device"),
            ([ONE, ONE], ("--report",), "takes one of them"),
        ):
            done = self.run(tmp_path, *reports, options=options)
            assert done.exit_code == 2
            assert message in done.stderr.replace("\n", " ")
