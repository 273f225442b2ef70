"""Every model in every format, which takes many minutes: `pytest tests/export_all.py`, run by hand.

`test_export.py` has a few of them; the table in `docs/export.md` is of these.
"""

import pytest
from test_export import SMALL, small

from sepfast import InputError
from sepfast.export import write_export

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
)


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("format", ["export", "aoti", "onnx"])
def test_files_give_the_models_numbers(format, fused, name, tmp_path):
    path = tmp_path / ("model.onnx" if format == "onnx" else "model.pt2")
    if format == "onnx" and fused:
        with pytest.raises(InputError, match="fused: got it with onnx"):
            write_export(small(name), path, format=format, fused=fused)
        return
    traced = not fused and format != "onnx" and name not in _STEPLESS
    made = write_export(small(name), path, format=format, fused=fused, frames=2 if traced else None)
    assert made.error <= 1e-6


#: Those without recurrent layers.
_STEPLESS = "deepconvsep", "deepconvsep-stereo", "udt", "denoising-vae"
