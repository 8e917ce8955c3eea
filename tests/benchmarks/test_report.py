import json

import pytest

from benchmarks import report
from benchmarks.endurance import Memory, Workers
from benchmarks.growth import Finding
from benchmarks.load.wrk import Shot
from benchmarks.report import Results
from benchmarks.rounds import Row
from benchmarks.ruler import Measured


def row(server: str, cpu_us: float, bad: int = 0) -> Row:
    return Row("list", server, [Shot(1_000, 500, cpu_us, 2, 9, 80, bad)])


def results(*rows: Row) -> Results:
    return Results(
        size=1_000,
        rounds=1,
        seconds=1,
        rows=rows,
        memory=Memory(requests=100_000, after=100, growth=0.5, bad=0),
        memory_of_peer=Memory(requests=100_000, after=80, growth=0.5, bad=0),
        workers=Workers(rate=Measured(1.2, 3), by_cpu=Measured(1.6, 3)),
        findings=[Finding("page 5,000 / page 1", 1.1, "x"), Finding("page 1", 3, "ms")],
    )


def targets_met(found: Results) -> dict[str, bool]:
    return {target.name: target.met for target in report.targets(found)}


def test_the_report_states_whether_each_target_is_met():
    found = results(row("bare", 900), row("peer", 1_000), row("floor", 500))

    assert targets_met(found) == {
        "list: CPU of bare / peer": True,
        "list: CPU of bare / floor": False,
        "memory of a worker in the end, bare / peer": True,
        "percent that the second half of the requests added": True,
        "two workers / one, by CPU": False,
        "page 5,000 / page 1": True,
    }


def test_a_void_row_has_no_result():
    found = results(row("bare", 900), row("peer", 1_000, bad=1), row("floor", 500))

    assert "list: CPU of bare / peer" not in targets_met(found)
    assert "| list      | peer   | void" in report.as_markdown(found)


def test_the_report_can_be_printed_as_json():
    printed = json.loads(report.as_json(results(row("bare", 900), row("peer", 1_000))))

    assert printed["rows"][0]["shots"][0]["cpu_us"] == 900
    assert printed["targets"][0] == {
        "name": "list: CPU of bare / peer",
        "measured": 0.9,
        "bound": 0.95,
        "at_least": False,
        "met": True,
    }


@pytest.mark.parametrize("size", [1_000_000, 10_000_000])
def test_the_performance_page_has_a_place_for_the_results(size):
    assert report.place_for(size).search(report.PAGE.read_text())
