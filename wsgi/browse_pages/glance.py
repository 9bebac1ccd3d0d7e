"""At a glance: each measurement once, with its latest value, the change since the last time, and a sparkline."""

from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from itertools import groupby
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from myhealth.clinical.catalog import codes_of
from myhealth.clinical.guide import DIASTOLIC, NAMES, SYSTOLIC, group_of
from myhealth.clinical.in_words import unit_of, value_text
from myhealth.clinical.ranges import parse_measurement
from myhealth.clinical.series import BLOOD_KIND
from myhealth.reports.newest import Measured
from myhealth.reports.trends import TrendPoint
from wsgi.browse_pages.charts import sparkline_svg
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.result_view import ResultView, pressure, result_fields, shortened

POINTS = 12  # of a sparkline
MANY = 14  # measurements beyond these are behind a fold
SAME = "unchanged since {}"
UPPER, LOWER = (codes_of(SYSTOLIC)[0], ""), (codes_of(DIASTOLIC)[0], "")


class GlanceItem(Struct, frozen=True):
    """One measurement. `change`: since the last time, in words; `day`: of the latest value; `svg`: its sparkline, ""
    if there are not two numbers; `path`: of its trend."""

    group: str
    block: ResultView
    change: str
    day: str
    iso: str
    svg: str
    path: str


Groups = list[tuple[str, list[GlanceItem]]]


def newest_results(found: dict[Measured, list[TrendPoint]]) -> dict[str, Any]:
    """Return the latest value of each measurement, as the results of a report."""
    return {"results": [result_fields(points[0]) for points in found.values() if points]}


def glance_groups(
    found: dict[Measured, list[TrendPoint]], newest: list[ResultView], dates: Dates, path: Callable[..., str]
) -> Groups:
    """Return (group, its measurements) in the order of the guide. `newest`: the views of `newest_results`. `path`:
    `link` for the pages about the person."""
    lines = {measured: points for measured, points in found.items() if points}
    views = dict(zip(lines, newest, strict=True))
    items = []
    upper, lower = lines.get(UPPER), lines.get(LOWER)
    if upper and lower and (upper[0].report_id, upper[0].unit) == (lower[0].report_id, lower[0].unit):
        del lines[UPPER], lines[LOWER]
        items.append(_item(NAMES[0], pressure(views[UPPER], views[LOWER]), [upper, lower], dates, path))
    kinds = Counter(test for test, _ in found)
    for measured, points in lines.items():
        group = group_of({"code": points[0].code, "name": points[0].name})
        items.append(_item(group, with_specimen(views[measured], measured, kinds), [points], dates, path))
    items.sort(key=lambda item: NAMES.index(item.group))  # within a group, those of the newest reports come first
    return [(group, list(same)) for group, same in groupby(items, key=lambda item: item.group)]


def with_specimen(view: ResultView, measured: Measured, kinds: Counter[str]) -> ResultView:
    """Return a view that is named with its specimen, "Glucose, urine", if that is not blood or its test has several of
    the `kinds`; but no "Urine protein, urine"."""
    test, kind = measured
    is_told = kind and (kinds[test] > 1 or kind != BLOOD_KIND) and kind not in view.name.casefold()
    return replace(view, name=f"{view.name}, {kind}") if is_told else view


def folded(groups: Groups) -> tuple[Groups, Groups, int]:
    """Return the groups to show at once, those behind a fold, and how many measurements these have."""
    shown, hidden = [], []
    rest = MANY
    for name, items in groups:
        shown.append((name, items[:rest]))
        hidden.append((name, items[rest:]))
        rest = max(rest - len(items), 0)
    kept, folds = ([(name, items) for name, items in each if items] for each in (shown, hidden))
    return kept, folds, sum(len(items) for _, items in folds)


def _item(
    group: str, block: ResultView, lines: list[list[TrendPoint]], dates: Dates, path: Callable[..., str]
) -> GlanceItem:
    point = lines[0][0]
    return GlanceItem(
        group=group,
        block=block,
        change=change_text(lines, dates),
        day=dates.day_of_value(point.taken_at, point.taken_precision),
        iso=dates.iso(point.taken_at),
        svg=sparkline_svg(lines, [view for _, view in block.parts]),
        path=block.trend(path),
    )


def change_text(lines: list[list[TrendPoint]], dates: Dates) -> str:
    """Return the change of the latest values since the last time: "+4 / −2 since 10 Aug 2026", or "unchanged since 10
    Aug 2026"; "" if there was none, or it is not known when."""
    lines = [[line[0], *(point for point in line[1:] if not point.warning)] for line in lines]
    points = lines[0]
    if any(len(line) < 2 for line in lines) or points[0].taken_at is None or points[1].taken_at is None:
        return ""
    if len({line[1].report_id for line in lines}) > 1:
        return ""
    day = dates.short_day(points[1].taken_at, points[1].taken_precision)
    return changed([(line[1].value, line[0].value) for line in lines], day)


def changed(pairs: Sequence[tuple[object, object]], day: str) -> str:
    """Return in words how values changed. `pairs`: (before, now) of each."""
    if all(value_text(before) == value_text(now) for before, now in pairs):
        return SAME.format(day)
    steps = [difference(before, now) for before, now in pairs]
    if all(steps):
        return SAME.format(day) if set(steps) == {"±0"} else f"{' / '.join(steps)} since {day}"
    return f"before: {'/'.join(shortened(value_text(before)) for before, _ in pairs)} on {day}"


def difference(before: object, now: object) -> str:
    """Return now - before with its sign, exactly; "" if one of them is not a number.

    difference(6.1, 5.9) -> "−0.2"
    """
    found = [parse_measurement(value) for value in (before, now)]
    if not all(each and not each[0] for each in found):
        return ""
    try:
        first, last = (Decimal(str(each[1])) for each in found if each)
        step = (last - first).normalize()
    except (InvalidOperation, OverflowError):
        return ""
    if abs(step.adjusted()) > 12:
        return ""
    return f"{'−' if step < 0 else '+' if step else '±'}{abs(step):f}"


def last_time(points: Sequence[TrendPoint | None], views: Sequence[ResultView], dates: Dates) -> str:
    """Return the values of the last time, "Last time 142/90 on 10 Aug 2026", with their unit if it is another one now;
    "" if they are not all of one report, are not dated, or are hardly possible."""
    known = [point for point in points if point is not None and not point.warning]
    if len(known) < len(points) or len({point.report_id for point in known}) != 1 or known[0].taken_at is None:
        return ""
    day = dates.short_day(known[0].taken_at, known[0].taken_precision)
    before = [value_text(point.value) for point in known]
    units = {unit_of(point.unit) for point in known if parse_measurement(point.value)}
    if units <= {unit_of(view.raw_unit) for view in views}:
        if before == [view.value for view in views]:
            return f"The same as last time, on {day}"
        units = set()
    return " ".join(["Last time", "/".join(map(shortened, before)), *sorted(units), f"on {day}"])
