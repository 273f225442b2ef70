"""Results files: what they hold, by one schema, and what the reader refuses."""

import json
from copy import deepcopy
from dataclasses import fields, replace
from math import inf, nan

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import ROW, report

from sepfast.bench.results import SCHEMA, Report, Row, read_report
from sepfast.bench.schema import SCHEMA_FILE, fault, schema
from sepfast.bench.tuning import Found
from sepfast.bench.verify import Checked
from sepfast.errors import InputError

VALIDATOR = jsonschema.Draft202012Validator(schema())

CHECKED = {
    "case": "song/stft", "side": "ours", "precision": "highest", "error": 1e-7,
    "gradient_error": 0.0, "bound": 1e-6, "gradient_bound": 1e-6, "path": "triton",
    "kernels": ["a"],
}  # fmt: skip
FAILED = {"case": "song/istft", "side": "ours", "precision": "high", "failed": "off by nan"}
FOUND = {
    "kernel": "a", "key": {"n_fft": 256, "levels": "none"}, "config": {"BLOCK": 8}, "p50_ms": 1.5,
    "shipped": None, "shipped_ms": 2, "tried": 3, "failed": ["off"],
}  # fmt: skip


def full() -> Report:
    """Results with something of everything."""
    made = report(ROW, sweeps=[ROW, replace(ROW, scale=0.5, peak_bytes=None)])
    made.environment |= {"capability": [9, 0], "memory_bytes": 10**11}
    made.verification, made.tuning = [CHECKED, FAILED], [FOUND]
    made.gpu_tests, made.skipped = {"exit": 0, "tail": ["3 passed"]}, {"tuning": "no time left"}
    return made


@pytest.fixture
def written(tmp_path):
    """A results file, and a function that writes another value into it."""
    path = tmp_path / "results.json"
    full().write(path)
    return path


def changed(path, *names, to=None):
    """Put something else into a place of a file."""
    value = json.loads(path.read_text())
    inner = value
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = to
    path.write_text(json.dumps(value))


class TestSchema:
    def test_is_one(self):
        VALIDATOR.check_schema(schema())

    def test_what_is_written_is_what_it_says(self, written):
        VALIDATOR.validate(json.loads(written.read_text()))
        assert read_report(written) == full()

    @pytest.mark.parametrize(
        ("kind", "name"), [(Row, "row"), (Found, "tuned"), (Checked, "verified")]
    )
    def test_has_every_attribute(self, kind, name):
        names = {each.name for each in fields(kind)}
        rule = schema()["$defs"][name]
        assert set(rule["properties"]) == set(rule["required"]) == names

    def test_has_every_part(self):
        names = {each.name for each in fields(Report)} | {"schema"}
        assert set(schema()["properties"]) == set(schema()["required"]) == names
        assert schema()["properties"]["schema"]["const"] == SCHEMA

    def test_knows_no_other_keyword(self):
        """The reader knows these alone, and none is passed over in silence."""
        known = {
            "$ref", "const", "enum", "type", "minimum", "exclusiveMinimum", "minLength", "minItems",
            "maxItems", "required", "properties", "additionalProperties", "items", "oneOf",
            "description",
        }  # fmt: skip
        assert set(_keywords(schema())) - known == {"$schema", "title", "$defs"}

    def test_is_packaged(self):
        assert SCHEMA_FILE.is_file()
        project = (SCHEMA_FILE.parents[1] / "pyproject.toml").read_text()
        assert '"sepfast.bench" = ["schema.json", "results/*.json"]' in project

    def test_checked_in_results(self):
        for path in (SCHEMA_FILE.parent / "results").glob("*.json"):
            VALIDATOR.validate(json.loads(path.read_text()))
            assert read_report(path).rows, path


def _keywords(rule):
    """The keywords of a rule and of those within."""
    for name, value in rule.items():
        yield name
        if name in ("properties", "$defs"):
            for each in value.values():
                yield from _keywords(each)
        elif isinstance(value, dict):
            yield from _keywords(value)
        elif name == "oneOf":
            for each in value:
                yield from _keywords(each)


class TestAgreement:
    """The reader's own judge and the package `jsonschema`."""

    VALUE = json.loads(
        json.dumps({"schema": SCHEMA, **full().__dict__}, default=lambda x: x.__dict__)
    )
    ODD = st.sampled_from(
        [None, True, False, 0, 1, -1, 3, 3.0, 0.5, "", "ours", "cpu", [], [1, 2, 3], {}, {"a": 1}]
    )

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_of_a_file_with_something_odd(self, data):
        value = deepcopy(self.VALUE)
        inner, depth = value, data.draw(st.integers(0, 4))
        for _ in range(depth):
            places = _places(inner)
            further = [each for each in places if isinstance(inner[each], dict | list)]
            if not further:
                break
            inner = inner[data.draw(st.sampled_from(further))]
        what = data.draw(st.sampled_from(["put", "drop", "add"]))
        if what == "add" and isinstance(inner, dict):
            inner["odd"] = data.draw(self.ODD)
        elif _places(inner):
            place = data.draw(st.sampled_from(_places(inner)))
            if what == "drop":
                del inner[place]
            else:
                inner[place] = data.draw(self.ODD)
        assert (fault(value) is None) == VALIDATOR.is_valid(value)


def _places(value):
    return list(value) if isinstance(value, dict) else list(range(len(value)))


class TestReader:
    @pytest.mark.parametrize(
        ("names", "to", "message"),
        [
            (("rows", 0, "p50_ms"), -1, r"rows\[0\]\.p50_ms: got -1, takes a number above 0"),
            (("rows", 0, "p50_ms"), 0, r"rows\[0\]\.p50_ms: got 0, takes a number above 0"),
            (("environment", "capability"), [9, 0, 0], r"capability: got \[9, 0, 0\], takes"),
            (("rows", 1, "side"), "mine", r'rows\[1\]\.side: got "mine", takes "ours", "graph"'),
            (("rows", 0, "peak_bytes"), "1", r"peak_bytes: got \"1\", takes an integer or null"),
            (("rows", 0, "p80_ms"), inf, r"p80_ms: got Infinity, takes a number above 0"),
            (("settings", "minutes"), nan, r"settings\.minutes: got NaN, takes a number"),
            (("rows", 0, "p20_ms"), 2.1, r"rows\[0\]: p20_ms is above p50_ms"),
            (("sweeps", 1, "p80_ms"), 1.9, r"sweeps\[1\]: p50_ms is above p80_ms"),
            (("rows", 0, "least_bytes"), 121, "least_bytes is above moved_bytes"),
            (("environment", "colour"), 1, "environment: has 'colour', which is not known"),
            (("verification", 0, "error"), None, r"verification\[0\]\.error: got null"),
            (("schema",), 2, "got results of schema 2, takes schema 3"),
        ],
    )
    def test_what_it_does_not_take(self, written, names, to, message):
        changed(written, *names, to=to)
        with pytest.raises(InputError, match=message) as raised:
            read_report(written)
        assert str(raised.value).startswith(str(written))

    def test_integers_are_of_any_length(self, written):
        changed(written, "rows", 0, "operations", to=10**400)
        assert read_report(written).rows[0].operations == 10**400

    @pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": 1}', "\0", '{"schema": 3}'])
    def test_what_is_no_results_file(self, tmp_path, text):
        path = tmp_path / "no.json"
        path.write_text(text)
        with pytest.raises(InputError, match=r"no\.json: "):
            read_report(path)

    def test_no_file(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.json"):
            with pytest.raises(InputError, match="cannot be read"):
                read_report(path)

    def test_infinite_times_are_null(self, tmp_path):
        """What a search for configurations found nothing in has."""
        made = full()
        made.tuning = [{**FOUND, "p50_ms": float("inf")}]
        made.write(tmp_path / "a.json")
        assert read_report(tmp_path / "a.json").tuning[0]["p50_ms"] is None

    def test_kinds_of_devices(self):
        assert full().on_gpu
        assert not report(ROW, kind="cpu").on_gpu
