"""The pieces of `python -m sepfast.bench`, in the order of their importance."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from sepfast.bench.case import Case, Size, demand
from sepfast.bench.cases import suite
from sepfast.bench.clocks import ceilings, clock_for
from sepfast.bench.graphs import FailedSide
from sepfast.bench.measure import measure
from sepfast.bench.results import OURS, Report, Row, environment, heading, line, losses
from sepfast.bench.settings import Settings
from sepfast.bench.sweeps import Point, points, scale_of
from sepfast.bench.systems import System, measure_system, systems
from sepfast.bench.tuning import Found, sweep, write_tuned
from sepfast.bench.tuning_jobs import jobs
from sepfast.bench.verify import WrongResult, check, compiles, demanded, sides
from sepfast.kernels.tuning import _device_name

#: So many cases, the most important ones, come before the tests and the tuning.
_FIRST = 4
#: Of the time that is left, what systems, the tests and the tuning may each take; systems that
#: are not done by then come last.
_SYSTEMS, _TESTS, _TUNING = 0.4, 0.3, 0.5
#: Likewise the sweeps that were asked for; those that a GPU makes by itself come last.
_SWEEPS = 0.4
#: Seconds that compiling a yardstick may take.
_COMPILING = 60


class Run:
    """One run of the command.

    Args:
        settings: what it was given.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        size: Size = "full" if settings.on_gpu else "quick" if settings.quick else "small"
        self.cases = [case for case in suite(size) if settings.only in case.name]
        self.systems = [
            (system, precision)
            for system in systems(size)
            for precision in (("highest", "high") if settings.on_gpu else ("highest",))
            if settings.only in system.name
        ]
        swept = settings.on_gpu or settings.sweep
        self.points = list(points(size, settings.only)) if swept else []
        here = {system.name for system, _ in self.systems}
        elsewhere = {
            system.name: "only on a GPU, or without --quick"
            for system in systems("full")
            if settings.only in system.name and system.name not in here
        }
        self.wrong: set[tuple[str, str]] = set()
        given = {
            "minutes": round(settings.left() / 60, 2),
            "quick": settings.quick,
            "only": settings.only,
            "size": size,
            "sweep": settings.sweep,
        }
        self.report = Report(environment(settings.device), given, skipped=elsewhere)

    def all(self) -> int:
        """Take all pieces; 1 where something is wrong, else 0."""
        settings = self.settings
        about = self.report.environment
        versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        print(f"{about['device']}, {versions}, commit {about['commit']}", flush=True)
        self.clock = clock_for(settings.device)
        self.most = ceilings(settings.device, self.clock)
        self.report.ceilings = self.most._asdict()
        print(
            f"copy {self.most.copy / 1e9:.0f} GB/s, products {self.most.single / 1e12:.2f} TFLOP/s"
        )
        self._verify()
        print(f"\n{heading()}")
        for case in self.cases[:_FIRST]:
            self._time(case)
        if settings.sweep:
            self._sweep(time.monotonic() + _SWEEPS * settings.left())
        self._time_systems(time.monotonic() + _SYSTEMS * settings.left())
        self._tests()
        self._tune()
        for case in self.cases[_FIRST:]:
            self._time(case)
        self._time_systems(settings.stop)
        self._sweep(settings.stop)
        for system, precision in self.systems:
            self._late(f"{system}, {precision}")
        self._unswept()
        self._conclude()
        return 1 if self.wrong or self.report.gpu_tests.get("exit", 0) else 0

    def _precisions(self, case: Case) -> tuple[str, ...]:
        """On a CPU there is one."""
        return ("highest", "high") if self.settings.on_gpu and case.products else ("highest",)

    def _verify(self) -> None:
        for case in self.cases:
            for precision in self._precisions(case):
                if self._late(f"verification of {case}, {precision}"):
                    continue
                with demanded(precision):
                    self._check(case)
        passed = sum("path" in each for each in self.report.verification)
        print(f"{passed} of {len(self.report.verification)} verifications passed", flush=True)
        self._write()

    def _check(self, case: Case) -> None:
        """Verify ours, and keep whatever goes wrong."""
        try:
            done = check(case, "ours", self.settings.device)
        except Exception as error:  # a kernel that does not compile is a result, too
            text = str(error) if isinstance(error, WrongResult) else repr(error)[:500]
            self._tell_wrong(case.name, "ours", text)
        else:
            self.report.verification.append(asdict(done))

    def _time(self, case: Case) -> None:
        for precision in self._precisions(case):
            if (case.name, precision) in self.wrong:
                self.report.skipped[f"{case}, {precision}"] = "wrong"
            elif not self._late(f"{case}, {precision}"):
                with demanded(precision):
                    self._rows(
                        case, sides(case, self._compiled(case, precision), self.settings.on_gpu)
                    )
        self._write()

    def _sweep(self, stop: float) -> None:
        """Time cases at their scales until it is too late to begin with another."""
        while self.points and time.monotonic() < stop:
            point = self.points.pop(0)
            if (point.case.name, "highest") in self.wrong:
                continue
            graph = ["graph"] if self.settings.on_gpu else []
            compiled = ["compiled"] if self._compiled(point.case, "highest", str(point)) else []
            with demanded("highest"):
                self._rows(point.case, ["ours", *graph, "eager", *compiled], point.scale)
            self._write()

    def _unswept(self) -> None:
        """Say what of the sweeps was not made; nothing is missing where nobody asked for them."""
        if self.settings.sweep:
            for point in self.points:
                self._late(str(point))
        elif self.points:
            self.report.skipped["sweeps"] = (
                f"{len(self.points)} points more; made where others leave time, or with --sweep"
            )

    def _compiled(self, case: Case, precision: str, named: str = "") -> bool:
        """Whether a case has its compiled side; once where precision changes nothing but ours."""
        once = case.transforms or not case.products
        if self.settings.quick or (once and precision != "highest"):
            return False
        name = f"{named or f'{case}, {precision}'}, compiled"
        if not compiles(case, self.settings.device):
            self.report.skipped[name] = "compiling or calling it takes too long here"
            return False
        if self.settings.left() < _COMPILING:
            self.report.skipped[name] = "too little time left to compile"
            return False
        return True

    def _rows(self, case: Case, chosen: list[str], scale: float | None = None) -> None:
        """Time a case, or a point of a sweep; what fails is left out, with the reason."""
        name = f"{case}, {demand()}" if scale is None else str(Point(case, scale))
        seconds, rounds = 2.0 if scale is None else 1.0, (5, 100)
        if self.settings.quick:
            seconds, rounds = 0.2, (3, 10)
        try:
            rows = measure(
                case, self.settings.device, self.clock, self.most, chosen,
                seconds=seconds, rounds=rounds, scale=scale or scale_of(case),
            )  # fmt: skip
        except Exception as error:  # out of memory, a compiler that fails: the others go on
            failed = error.side if isinstance(error, WrongResult | FailedSide) else chosen[-1]
            self._fail(f"{name}, {failed}", case.name, failed, error, scale)
            rest = [side for side in chosen if side != failed]
            if {"ours", "eager"} <= set(rest):
                self._rows(case, rest, scale)
            return
        finally:
            if self.settings.on_gpu:
                torch.cuda.empty_cache()
        self._add(rows, self.report.rows if scale is None else self.report.sweeps)

    def _time_systems(self, stop: float) -> None:
        """Time systems until it is too late to begin with another."""
        while self.systems and time.monotonic() < stop:
            system, precision = self.systems.pop(0)
            with demanded(precision):
                self._system(system, f"{system}, {precision}", stop)
            self._write()

    def _system(self, system: System, name: str, stop: float) -> None:
        """Time a system; what fails is left out, with the reason."""
        chosen = system.sides(self.settings.device)
        if self.settings.quick or stop - time.monotonic() < _COMPILING:
            chosen.remove("compiled")
            if not self.settings.quick:
                self.report.skipped[f"{name}, compiled"] = "too little time left to compile"
        seconds, rounds = (0.2, (3, 10)) if self.settings.quick else (2.0, (3, 100))
        try:
            rows = measure_system(
                system, self.settings.device, self.clock, self.most, chosen,
                lambda side, error: self._fail(f"{name}, {side}", system.name, side, error),
                seconds=seconds, rounds=rounds,
            )  # fmt: skip
        except Exception as error:  # memory, for one; where it is wrong, it is ours
            self._fail(name, system.name, "ours", error)
        else:
            self._add(rows, self.report.rows)
        finally:
            if self.settings.on_gpu:
                torch.cuda.empty_cache()

    def _add(self, rows: list[Row], to: list[Row]) -> None:
        to += rows
        for row in rows:
            scale = f"  scale {row.scale:.3g}" if to is self.report.sweeps else ""
            print(f"{line(row)}{scale}", flush=True)

    def _tests(self) -> None:
        """`pytest -m gpu`, where there are pytest, the tests and a GPU."""
        folder = Path(__file__).resolve().parents[1] / "tests"
        if not self.settings.on_gpu:
            self._leave_out("GPU tests", "need a GPU")
        elif importlib.util.find_spec("pytest") is None or not folder.is_dir():
            self._leave_out("GPU tests", "pytest or the tests are not there")
        elif self.settings.quick or self.settings.only:
            self._leave_out("GPU tests", "not with --quick or --only")
        elif not self._late("GPU tests"):
            self._pytest(folder, _TESTS * self.settings.left())

    def _pytest(self, folder: Path, seconds: float) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(folder)]
        try:
            done = subprocess.run(
                command, cwd=folder.parent, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            self._leave_out("GPU tests", f"not done when time was up, after {seconds:.0f} s")
            return
        tail = (done.stdout.strip() or done.stderr.strip()).splitlines()[-30:]
        self.report.gpu_tests = {"exit": done.returncode, "tail": tail}
        print(f"GPU tests: {tail[-1] if tail else 'no output'}", flush=True)
        self._write()

    def _tune(self) -> None:
        if not self.settings.on_gpu:
            self._leave_out("tuning", "needs a GPU")
            return
        if self.settings.quick:
            self._leave_out("tuning", "not with --quick")
            return
        stop = time.monotonic() + _TUNING * self.settings.left()
        name = _device_name(self.settings.device)
        precisions = ("ieee",) if torch.version.hip else ("tf32x3", "tf32")
        devices = (name, name.split(":")[0], "any")
        found: list[Found] = []
        chosen = [
            job for job in jobs(precisions, devices) if _concerns(job.stage, self.settings.only)
        ]
        for done, job in enumerate(chosen):
            if time.monotonic() > stop:
                self._leave_out("tuning", f"{done} of {len(chosen)} keys done when time was up")
                break
            try:
                each = sweep(job, self.settings.device, self.clock, lambda: time.monotonic() > stop)
            except Exception as error:  # memory, for one
                self._leave_out(f"tuning of {job}", repr(error)[:500])
                continue
            found.append(each)
            self.report.tuning.append(asdict(each))
            print(f"tuned {job}: {each.config}, {each.p50_ms:.3f} ms, was {each.shipped_ms:.3f}")
            write_tuned(self.settings.out.parent / "tuned", name, found)
            self._write()
            torch.cuda.empty_cache()

    def _conclude(self) -> None:
        report = self.report
        report.complete = not any(
            "time left" in why or "time was up" in why for why in report.skipped.values()
        )
        self._write()
        print()
        slower = [*losses(report.rows), *losses(report.sweeps, scaled=True)]
        print("\n".join(slower) if slower else "ours loses nowhere")
        above = {r.case: r.moved_bytes / r.least_bytes for r in report.rows if r.side == "ours"}
        for case, excess in above.items():
            if excess > 1.1:
                print(f"predicted bytes above 1.1 times the least: {case}: {excess:.2f}")
        for piece, why in report.skipped.items():
            print(f"left out: {piece}: {why}")
        print(f"results in {self.settings.out}")

    def _late(self, piece: str) -> bool:
        """Whether the time is up, so that a piece is left out."""
        if self.settings.left() > 0:
            return False
        self.report.skipped[piece] = "no time left"
        return True

    def _fail(
        self, piece: str, case: str, side: str, error: Exception, scale: float | None = None
    ) -> None:
        """Keep why a side failed; one of ours that is wrong is more than left out."""
        if isinstance(error, WrongResult) and side in OURS:
            at = "" if scale is None else f", at scale {scale:.3g}"
            self._tell_wrong(case, side, f"{error}{at}")
        else:
            self._leave_out(piece, repr(error)[:500])

    def _tell_wrong(self, case: str, side: str, text: str) -> None:
        """Keep what makes the run fail, at the precision that is demanded now."""
        self.wrong.add((case, demand()))
        self.report.verification.append(
            {"case": case, "side": side, "precision": demand(), "failed": text}
        )
        print(f"WRONG, not timed: {case}, {demand()}: {text}", flush=True)

    def _leave_out(self, piece: str, why: str) -> None:
        self.report.skipped[piece] = why
        print(f"{piece}: left out, {why}", flush=True)

    def _write(self) -> None:
        self.report.write(self.settings.out)


def _concerns(stage: str, only: str) -> bool:
    """Whether a kernel belongs to what was asked for."""
    return not only or any(stage in case.kernels for case in suite("quick") if only in case.name)
