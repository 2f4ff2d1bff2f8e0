"""History as columns: what it keeps, how it is thinned out, and that a growing file is read on."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubevo_api.history import COLUMNS, History, csv_bytes, listed, parquet_bytes, record, thinned
from kubevo_api.runs import Library
from kubevo_core.errors import StoreError


def row(generation: int, **changes: Any) -> dict[str, Any]:
    return {
        "repeat": 0,
        "generation": generation,
        "fitness": {"max": generation + 2.5, "mean": 1.0, "median": 1.0, "min": -3.0, "slot": 1},
        "failed": 1,
        "elite": {"slot": 2, "genome": "e", "mean": 5.0, "sd": 2.0, "episodes": 16, "mutations": 1},
        "best": {"genome": "b", "mean": 6.0, "generation": 0},
        "evaluations": 10,
        "episodes": 20,
        "steps": 100,
        "frames": 400 * (generation + 1),
        "runningSeconds": 0.5 * (generation + 1),
        **changes,
    }


def of(*rows: dict[str, Any]) -> History:
    found = History()
    found.extend(rows)
    return found


def test_a_row_comes_back_with_the_interval_of_its_elite():
    found = of(row(0)).row(0)
    assert found is not None
    assert (found["max"], found["eliteSlot"], found["frames"]) == (2.5, 2, 400)
    assert found["eliteLow"] == pytest.approx(5 - 1.96 * 2 / 4, abs=1e-3)
    assert found["eliteHigh"] == pytest.approx(5 + 1.96 * 2 / 4, abs=1e-3)


def test_what_is_not_known_is_null():
    nothing = {"max": None, "mean": None, "median": None, "min": None, "slot": None}
    found = of(row(0, fitness=nothing, elite=None, best=None)).row(0)
    assert found is not None
    names = ("max", "mean", "elite", "eliteLow", "eliteSlot", "best", "bestGeneration")
    assert [found[name] for name in names] == [None] * len(names)


def test_a_row_of_an_older_version_has_no_interval():
    found = of(row(0, elite={"slot": 1, "genome": "e", "mean": 5.0})).row(0)
    assert found is not None
    assert (found["elite"], found["eliteLow"]) == (5.0, None)


def test_a_range_has_both_its_ends():
    columns = of(*map(row, range(10))).columns(3, 5)
    assert columns["generation"].tolist() == [3, 4, 5]
    assert of(row(0)).row(1) is None


@given(count=st.integers(1, 400), points=st.integers(2, 60))
def test_thinning_keeps_the_extremes_the_totals_and_the_end(count, points):
    rows = [
        row(g, failed=g % 3, fitness={"max": float(g * 37 % 101), "min": -g}) for g in range(count)
    ]
    columns = of(*rows).columns()
    found = thinned(columns, points)
    assert len(found["generation"]) == min(count, points)
    assert found["generation"][-1] == count - 1
    assert found["max"].max() == columns["max"].max()
    assert found["min"].min() == columns["min"].min()
    assert found["failed"].sum() == columns["failed"].sum()
    assert found["frames"][-1] == columns["frames"][-1]
    assert all(math.isnan(value) for value in found["mean"])


def test_tables_hold_what_the_columns_do():
    columns = of(row(0), row(1, elite=None)).columns()
    lines = csv_bytes(columns).decode().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 3
    table = pq.read_table(io.BytesIO(parquet_bytes(columns)))
    assert table.column("generation").to_pylist() == [0, 1]
    assert table.column("elite").to_pylist() == [5.0, None]
    for name in COLUMNS:
        assert table.column(name).to_pylist() == listed(name, columns[name])
    assert record(columns, 1)["elite"] is None


def append(file: Path, *rows: dict[str, Any], torn: bytes = b"") -> None:
    with file.open("ab") as stream:
        for each in rows:
            stream.write(json.dumps(each).encode() + b"\n")
        stream.write(torn)


def test_a_file_that_grows_is_read_on_and_a_torn_end_waits(tmp_path):
    file, library = tmp_path / "history.jsonl", Library()
    assert len(library.followed(file).history) == 0
    append(file, row(0), torn=json.dumps(row(1)).encode()[:20])
    assert len(library.followed(file).history) == 1
    file.write_bytes(file.read_bytes()[:-20])
    append(file, row(1), row(2))
    assert len(library.followed(file).history) == 3


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    file, library = tmp_path / "history.jsonl", Library()
    append(file, row(0), row(1), row(2))
    assert len(library.followed(file).history) == 3
    beside = tmp_path / "beside"
    append(beside, row(0), row(1, failed=7))
    beside.replace(file)
    assert library.followed(file).history.columns()["failed"].tolist() == [1, 7]


def test_a_damaged_line_is_an_error_with_a_cure(tmp_path):
    file = tmp_path / "history.jsonl"
    append(file, row(0))
    with file.open("ab") as stream:
        stream.write(b"{broken\n")
    with pytest.raises(StoreError, match="resume the run"):
        Library().followed(file)


def test_ten_thousand_generations_take_little_memory():
    found = of(*(row(g) for g in range(10_000)))
    assert found.nbytes < 4_000_000
    assert len(np.unique(found.columns()["generation"])) == 10_000
