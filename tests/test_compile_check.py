"""The compile gate: that it sees what is wrong, and finds nothing wrong with our kernels."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("triton")

import triton
from compile_check_all import LEFT_OUT, TARGET

from sepfast import InputError
from sepfast.kernels import _compile_pool, catalog
from sepfast.kernels._catalog import identity
from sepfast.kernels._compile_cache import cache_path
from sepfast.kernels.compile_check import check
from sepfast.kernels.compile_result import TABLE, Result, read_results, write_results
from sepfast.kernels.launch import Entry
from sepfast.kernels.machine_code import MachineCode, read_amd, read_cuda
from sepfast.kernels.targets import TARGETS, targets

CUDA = """
Resource usage:
 Common:
  GLOBAL:0
 Function sepfast_made_up:
  REG:63 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:568 TEXTURE:0 SURFACE:0 SAMPLER:0

	code for sm_90a
		Function : sepfast_made_up
        /*0000*/                   LDC R1, c[0x0][0x28] ;                 /* 0x00000a00ff017b82 */
                                                                          /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R6.64] ;       /* 0x0002000406176981 */
        /*0020*/                   LDG.E R4, desc[UR4][R6.64+0x200] ;     /* 0x0002000406176981 */
        /*0030*/                   LDGSTS.E.BYPASS.128 [R4], [R6.64] ;    /* 0x0002000406176981 */
        /*0040*/                   STL.64 [R1], R4 ;                      /* 0x0002000406176981 */
        /*0050*/              @UP0 LDL.LU R4, [R1] ;                      /* 0x0002000406176981 */
        /*0060*/                   WARPGROUP.ARRIVE ;                     /* 0x0002000406176981 */
        /*0070*/                   {operation} ;                          /* 0x0002000406176981 */
        /*0080*/               @P5 STG.E desc[UR4][R6.64], R4 ;           /* 0x0002000406176981 */
        /*10090*/                  STG.E.128 desc[UR4][R6.64], R4 ;       /* 0x0002000406176981 */
"""

AMD = """
	global_load_dwordx4 v[0:3], v4, s[0:1]
	global_load_dword v5, v4, s[0:1] offset:16
	buffer_store_b128 v[0:3], v4, s[0:3], 0 offen
	buffer_gl0_inv
	scratch_store_b32 off, v0, off
	{operation} v[0:3], v[4:5], v[6:7]
	.set sepfast_made_up.num_vgpr, 3
amdhsa.kernels:
  - .agpr_count:     0
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 12
    .sgpr_spill_count: 2
    .vgpr_count:     23
    .vgpr_spill_count: 5
"""


@pytest.mark.parametrize(
    ("operation", "tensor"),
    [
        ("HMMA.1688.F32.TF32 R4, R4, R6, R8", 1),
        ("HGMMA.64x64x8.F32.TF32 R24, R4, gdesc[UR8]", 1),
        ("UTCHMMA gdesc[UR8], gdesc[UR10], tmem[UR4], tmem[UR12], idesc[UR13], UP0", 1),
        ("FFMA R4, R4, R6, R8", 0),
        ("HFMA2.MMA R4, -RZ, RZ, 0, 0", 0),
    ],
)
def test_cuda_disassembly_is_read(operation, tensor):
    found = read_cuda(CUDA.format(operation=operation))
    assert found == MachineCode(63, stack=8, spills=2, tensor=tensor, accesses=5, wide=3)


@pytest.mark.parametrize(
    ("operation", "tensor"),
    [
        ("v_mfma_f32_32x32x4_xf32", 1),
        ("v_wmma_f32_16x16x16_bf16", 1),
        ("v_smfmac_f32_16x16x32_bf16", 1),
        ("v_fma_f32", 0),
    ],
)
def test_amd_assembly_is_read(operation, tensor):
    found = read_amd(AMD.format(operation=operation))
    assert found == MachineCode(23, stack=12, spills=7, tensor=tensor, accesses=3, wide=2)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no resource usage"):
        read_cuda("cuobjdump fatal: no such file")
    with pytest.raises(ValueError, match="does not give vgpr_count"):
        read_amd("")


GOOD = Result(
    kernel="sepfast_made_up",
    target="cuda:86",
    constants={"PRECISION": "tf32", "BLOCK": 16},
    options={"num_warps": 4},
    dots=True,
    registers=63,
    shared=101_376,
    stack=0,
    spills=0,
    tensor=1,
    accesses=5,
    wide=3,
)
IEEE = {"PRECISION": "ieee"}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"spills": 2}, "spills registers (2 instructions that reach local memory)"),
        ({"stack": 8}, "keeps 8 bytes a thread in local memory, not in registers"),
        ({"shared": 101_377}, "takes 101377 bytes of shared memory of 101376"),
        ({"shared": 101_377, "target": "cuda:90"}, None),
        ({"tensor": 0}, "multiplies matrices without tensor cores"),
        ({"tensor": 0, "dots": False}, None),
        ({"tensor": 0, "constants": {}}, "multiplies matrices without tensor cores"),
        ({"tensor": 0, "constants": IEEE, "shared": 0, "target": "hip:gfx1100"}, None),
        ({"error": "ValueError: no", "spills": 2}, "does not compile: ValueError: no"),
    ],
)
def test_each_fault_is_named(changes, fault):
    result = replace(GOOD, **changes)
    assert result.faults() == ([] if fault is None else [fault])
    assert all(
        problem.startswith("sepfast_made_up (") and f" on {result.target}: " in problem
        for problem in result.problems()
    )


def test_targets_take_the_precisions_they_are_launched_with():
    assert len(targets()) == 8
    assert [t.name for t in targets(["hip:gfx942", "cuda:80"])] == ["cuda:80", "hip:gfx942"]
    takers = {p: [t.name for t in TARGETS if t.takes({"PRECISION": p})] for p in ("tf32x3", "ieee")}
    assert takers["tf32x3"] == [t.name for t in TARGETS if t.backend == "cuda"]
    assert takers["ieee"] == ["hip:gfx942", "hip:gfx1100"]
    assert all(t.takes({}) for t in TARGETS)
    with pytest.raises(InputError, match="target: got 'cuda:91', takes cuda:80, cuda:86"):
        targets(["cuda:91"])


def test_results_are_written_one_to_a_line_and_read_back(tmp_path):
    results = [replace(GOOD, target="hip:gfx942", shared=0), GOOD]
    write_results(tmp_path / "results.json", results)
    assert (tmp_path / "results.json").read_text().count("\n{") == 2
    assert read_results(tmp_path / "results.json") == (triton.__version__, results[::-1])


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """The gate with a compiler that only notes what it is given, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    function = SimpleNamespace(cache_key="source", __module__="made_up")
    entry = Entry("made_up", function, {"x": "*fp32"}, {"BLOCK": 16}, {"num_warps": 4}, False)
    told = SimpleNamespace(entry=entry, compiled=[], error="")

    def run(jobs, workers):
        told.compiled += jobs
        for job in jobs:
            yield job, job.result(0, MachineCode(7, 0, 0, 0, 0, 0), told.error)

    monkeypatch.setattr(_compile_pool, "run", run)
    told.check = lambda **options: check([told.entry], targets(["cuda:80"]), **options)
    return told


def test_what_was_compiled_is_not_compiled_again(gate):
    first = gate.check()
    assert [result.registers for result in first] == [7]
    assert gate.check() == first
    assert len(gate.compiled) == 1
    assert gate.check(cached=False) == first
    assert len(gate.compiled) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"function": SimpleNamespace(cache_key="other", __module__="made_up")},
        {"signature": {"x": "*fp16"}},
        {"constants": {"BLOCK": 32}},
        {"options": {"num_warps": 8}},
        {"dots": True},
    ],
)
def test_what_changed_is_compiled_again(gate, change):
    gate.check()
    gate.entry = replace(gate.entry, **change)
    gate.check()
    assert len(gate.compiled) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"KEY": 3}', '{"KEY": {"registers": 3}}'])
def test_broken_cache_is_ignored_and_mended(gate, content):
    first = gate.check()
    (key,) = json.loads(cache_path().read_text())
    cache_path().write_text(content.replace("KEY", key))
    assert gate.check() == gate.check() == first
    assert len(gate.compiled) == 2


def test_errors_are_not_cached(gate):
    gate.error = "the compiler crashed"
    assert gate.check()[0].problems()
    gate.error = ""
    assert not gate.check()[0].problems()


def test_cache_folder_that_cannot_be_written_is_no_fault(gate, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [result.registers for result in gate.check()] == [7]


def test_interpreting_process_is_refused():
    entry = Entry("made_up", SimpleNamespace(__module__="made_up"), {}, {}, {}, False)
    with pytest.raises(InputError, match="Triton runs interpreted in this process"):
        check([entry], targets())


def _run(*arguments):
    """Run a program that compiles, and so must not be told to interpret."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_odd_kernels_are_refused(tmp_path):
    program = Path(__file__).with_name("compile_check_kernels.py")
    done = _run(program, tmp_path / "odd.json")
    assert done.returncode == 0, done.stderr
    _, results = read_results(tmp_path / "odd.json")
    by_name = {f"{r.kernel} {r.configuration()} {r.target}": r.faults() for r in results}
    assert by_name.pop("product INPUTS=tf32 SIZE=32 num_warps=8 cuda:86") == []
    faults = {name.split(" num_warps")[0]: " and ".join(found) for name, found in by_name.items()}
    for name, expected in {
        "spilling SIZE=16384": r"spills registers .* and keeps \d+ bytes",
        "product INPUTS=ieee SIZE=16": "multiplies matrices without tensor cores",
        "product INPUTS=tf32 SIZE=128": "takes 131072 bytes of shared memory of 101376",
        "faulty SIZE=3": "does not compile: ValueError: arange's range must be a power of 2",
        "faulty LENGTH=4": "do not fit the arguments: LENGTH, SIZE",
        "crashing": "does not compile: the compiler crashed",
    }.items():
        assert re.search(expected, faults.pop(name))
    assert not faults
    assert all(found for name, found in by_name.items() if name.endswith("hip:gfx1100"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "cuda:91"], "target: got 'cuda:91', takes cuda:80"),
        (["--kernel", "fft"], "kernel: got 'fft', takes sepfast_"),
        (["--jobs", "0"], "--jobs: got 0, takes 1 or more"),
        (["--update", "--target", "cuda:90"], "takes a run of everything"),
    ],
)
def test_bad_options_are_named(arguments, message):
    done = _run("-m", "sepfast", "compile-check", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_an_example():
    done = _run("-m", "sepfast", "compile-check", "--help")
    assert "Example: sepfast compile-check" in done.stdout


def test_impatient_interruption_ends_the_compilers(tmp_path):
    command = [sys.executable, "-m", "sepfast", "compile-check", "--no-cache"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **streams) as going:
        assert going.stdout.readline().startswith("compiling")
        time.sleep(5)  # until it waits for its workers
        for _ in range(2):
            going.send_signal(signal.SIGINT)
            time.sleep(0.05)
        _, errors = going.communicate(timeout=60)
    assert going.returncode != 0
    assert "sepfast: interrupted" in errors


def test_catalog_names_kernels_and_all_their_arguments():
    entries = catalog()
    assert entries
    for entry in entries:
        assert re.fullmatch(r"sepfast_[a-z0-9]+(_[a-z0-9]+)+", entry.kernel)
        assert {*entry.signature, *entry.constants} == set(entry.function.arg_names), entry.kernel
        assert not entry.signature.keys() & entry.constants.keys()
    assert len({identity(e.kernel, e.constants, e.options, e.device) for e in entries}) == len(
        entries
    )


def test_table_has_every_kernel_on_every_target_it_is_launched_on():
    """`sepfast compile-check --update` puts this right."""
    _, results = read_results(TABLE)
    here = [identity(r.kernel, r.constants, r.options, r.target) for r in results]
    expected = {
        identity(entry.kernel, entry.constants, entry.options, target.name)
        for entry in catalog()
        for target in TARGETS
        if target.takes(entry.constants, entry.device)
    }
    assert set(here) == expected
    assert len(here) == len(expected)
    assert results == sorted(results, key=Result.order)
    assert not [problem for result in results for problem in result.problems()]


def test_the_table_is_of_the_tested_triton():
    version, _ = read_results(TABLE)
    tested = Path(__file__).parents[1] / "constraints.txt"
    assert f"triton=={version}" in tested.read_text().splitlines()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """What the gate says of the kernels on one target, and its program's end."""
    path = tmp_path_factory.mktemp("gate") / "results.json"
    return _run(Path(__file__).with_name("compile_check_all.py"), path), path


def test_every_kernel_compiles_without_a_fault(compiled):
    done, path = compiled
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    _, results = read_results(path)
    assert not [problem for result in results for problem in result.problems()]
    assert {result.target for result in results} == {TARGET}


def test_every_kernel_is_compiled_as_the_table_says(compiled):
    """`sepfast compile-check --update` shows in review what changed."""
    version, table = read_results(TABLE)
    if version != triton.__version__:
        pytest.skip(f"the table is of Triton {version}")
    _, results = read_results(compiled[1])
    rows = [row for row in table if row.target == TARGET]
    assert all(result in rows for result in results)
    assert {result.kernel for result in results} == {
        row.kernel for row in rows if row.constants.get("PRECISION") != LEFT_OUT
    }
