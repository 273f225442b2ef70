"""Stand-ins for the packages that score speech."""

from types import SimpleNamespace

import numpy as np


class Packages:
    """Stand-ins for the packages: scores of 4 and 5 for the reference itself, else of 2 and 3."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.answer: float | Exception | None = None

    def pesq(self, rate, reference, estimate, mode, on_error):
        self.calls.append(("pesq", rate, mode, reference.shape, reference.dtype))
        return self._answer(4.0 if np.array_equal(reference, estimate) else 2.0)

    def create(self, **options):
        self.calls.append(("create", options))

    def measure_from_arrays(self, reference, estimate, rate):
        self.calls.append(("visqol", rate, reference.shape, reference.dtype))
        score = self._answer(5.0 if np.array_equal(reference, estimate) else 3.0)
        return SimpleNamespace(moslqo=score)

    def _answer(self, score):
        if isinstance(self.answer, Exception):
            raise self.answer
        return score if self.answer is None else self.answer

    def modules(self) -> dict[str, SimpleNamespace]:
        """What is imported instead, by name."""
        error = SimpleNamespace(RETURN_VALUES=1)
        return {
            "pesq": SimpleNamespace(pesq=self.pesq, PesqError=error),
            "visqol": SimpleNamespace(VisqolApi=lambda: self),
        }
