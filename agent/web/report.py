"""One HTML page that shows whether a run kept its plans: the end of a demo.

Pure: values in, text out. Whatever peers named is escaped; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import pairwise

Points = tuple[tuple[datetime, float], ...]

POINTS_DRAWN_MAX = 1200
"""A chart is about 1100 px wide: more points cannot be seen, and every page is mailed."""
CAP_TOLERANCE_W = 0.5
"""Below the last digit that is shown: sums of floats are not exact."""
LEFT, TOP, RIGHT, BOTTOM = 56, 16, 24, 24
"""Margins of a chart in its own units, for the numbers on its axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VehicleLine:
    """One visit of one vehicle: energy in Wh, power in W at the outlet, SoC in percent.

    ``planned`` is a step curve: each value holds until the next point, the last one until
    the vehicle leaves. ``drawn`` is measured power. ``worst_over_w`` is the most that was
    drawn above the limit, 0 when never.
    """

    vehicle_id: str
    name: str
    outlet: str
    ocpp_version: str
    plugged_at: datetime
    unplugged_at: datetime | None
    planned_wh: float
    drawn_wh: float
    planned_peak_w: float
    drawn_peak_w: float
    soc_start: float | None
    soc_end: float | None
    soc_target: float | None
    worst_over_w: float
    kept: bool
    note: str
    planned: Points
    drawn: Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run; ``total``, ``peak_w`` and ``cap_w`` are watts on the grid side."""

    title: str
    started_at: datetime
    ended_at: datetime
    cap_w: float
    stations: int
    vehicles: tuple[VehicleLine, ...]
    peak_w: float
    peak_at: datetime | None
    total: Points
    verdicts: tuple[tuple[str, bool], ...]


def render_report(report: Report) -> str:
    """Render the page: verdict, total power against the cap, each vehicle's plan."""
    title = escape(report.title)
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f'<link rel="icon" href="data:,"><title>{title}</title>',
        f"<style>{STYLE}</style></head>\n<body><main>",
        _headline(report),
        _facts(report),
        _total(report),
        _table(report),
        _cards(report),
        FOOTER,
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


# --- parts of the page ----------------------------------------------------------


def _headline(report: Report) -> str:
    mood, words = _verdict(report)
    checks = "".join(
        f'<li class="{"good" if is_kept else "bad"}"><b>{"✓" if is_kept else "✗"}</b> '
        f"{escape(text)}{'' if is_kept else ': no'}</li>"
        for text, is_kept in report.verdicts
    )
    faults = "".join(f"<li>{escape(text)}</li>" for text in _faults(report))
    return (
        f'<header class="{mood}"><p class="title">{escape(report.title)}</p>'
        f"<h1>{words}</h1>"
        + (f'<ul class="faults">{faults}</ul>' if faults else "")
        + (f'<ul class="checks">{checks}</ul>' if checks else "")
        + "</header>"
    )


def _verdict(report: Report) -> tuple[str, str]:
    """Mood and words of the whole run.

    The verdicts rule: who made them knows how exact the meters are. Without any, a peak
    above the cap is enough.
    """
    plans = len(report.vehicles)
    lost = sum(not line.kept for line in report.vehicles)
    if lost:
        return "bad", f"✗ Not kept: {lost} of {_count(plans, 'plan')}"
    is_passed = _is_cap_passed(report)
    if not all(is_kept for _, is_kept in report.verdicts or (("", not is_passed),)):
        return "bad", "✗ Not kept: the cap was passed" if is_passed else "✗ Not kept"
    if not plans:
        return "warn", "● Nothing to judge: no vehicle took part"
    cap = "" if is_passed else ", and the cap never passed"
    return "good", f"✓ Kept: {_count(plans, 'plan')}{cap}"


def _faults(report: Report) -> list[str]:
    """What the reader must look at, one sentence each."""
    found: list[str] = []
    if _is_cap_passed(report):
        over = _kw(report.peak_w - report.cap_w)
        found.append(f"The peak, at {_clock(report.peak_at)} UTC, was {over} above the cap")
    for line in report.vehicles:
        if not line.kept:
            note = f": {line.note}" if line.note else ""
            found.append(f"{_called(line)} at {line.outlet} did not keep its plan{note}")
    return found


def _facts(report: Report) -> str:
    drawn_wh = sum(line.drawn_wh for line in report.vehicles)
    planned_wh = sum(line.planned_wh for line in report.vehicles)
    kept = sum(line.kept for line in report.vehicles)
    share = f", {100 * report.peak_w / report.cap_w:.0f} % of cap" if report.cap_w else ""
    began, ended = report.started_at.astimezone(UTC), report.ended_at.astimezone(UTC)
    rows = (
        ("Time, UTC", f"{began:%H:%M} to {ended:%H:%M}", f"from {began:%Y-%m-%d}"),
        ("Stations", str(report.stations), ""),
        ("Vehicles", str(len(report.vehicles)), f"{kept} kept their plan"),
        ("Energy drawn", _kwh(drawn_wh), f"of {_kwh(planned_wh)} planned"),
        ("Peak, grid side", _kw(report.peak_w), f"at {_clock(report.peak_at)}{share}"),
        ("Cap, grid side", _kw(report.cap_w), ""),
    )
    items = "".join(
        f"<div><dt>{name}</dt><dd>{value}<br><small>{more}</small></dd></div>"
        for name, value, more in rows
    )
    return f"<dl>{items}</dl>"


def _total(report: Report) -> str:
    mood = "over" if _is_cap_passed(report) else "drawn"
    chart = _Chart(
        size=(1100, 260),
        span=(report.started_at, report.ended_at),
        top_w=max(report.cap_w, report.peak_w, *_watts(report.total)),
        label=f"Total power over time: peak {_kw(report.peak_w)}, cap {_kw(report.cap_w)}",
    )
    chart.area(_steps(report.total, report.ended_at), "fill")
    chart.line(report.total, mood)
    chart.level(report.cap_w, f"cap {_kw(report.cap_w)}")
    if report.peak_at is not None:
        chart.dot(report.peak_at, report.peak_w, f"peak {_kw(report.peak_w)}")
    return (
        "<section><h2>Total power against the cap</h2><div class='scroll total'>"
        f"{chart.render() if report.total else _NO_VALUES}</div></section>"
    )


def _table(report: Report) -> str:
    heads = (
        "<th scope='col'>Vehicle</th><th scope='col'>Outlet</th>"
        "<th scope='col'>Plugged</th><th scope='col'>Unplugged</th>"
        "<th scope='col' class='n'>Energy planned</th>"
        "<th scope='col' class='n'>Energy drawn</th>"
        "<th scope='col' class='n'>Peak planned</th>"
        "<th scope='col' class='n'>Peak drawn</th>"
        "<th scope='col' class='n'>Most over limit</th>"
        "<th scope='col'>SoC</th><th scope='col'>Plan</th>"
    )
    rows = "".join(_row(line) for line in report.vehicles)
    return (
        "<section><h2>Vehicles: planned and drawn</h2><div class='scroll'>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        + ("" if rows else "<p>No vehicle took part.</p>")
        + "</section>"
    )


def _row(line: VehicleLine) -> str:
    left = _clock(line.unplugged_at) if line.unplugged_at is not None else "plugged in"
    note = f"<br><small>{escape(line.note)}</small>" if line.note else ""
    over = _kw(line.worst_over_w) if line.worst_over_w > 0 else "never"
    called = f"<br><small>{escape(line.vehicle_id)}</small>" if line.name else ""
    return (
        f"<tr class='{'' if line.kept else 'bad-row'}'>"
        f"<th scope='row'>{escape(_called(line))}{called}</th>"
        f"<td>{escape(line.outlet)}<br><small>{escape(_ocpp(line))}</small></td>"
        f"<td>{_clock(line.plugged_at)}</td><td>{left}</td>"
        f"<td class='n'>{_kwh(line.planned_wh)}</td>"
        f"<td class='n'>{_kwh(line.drawn_wh)}</td>"
        f"<td class='n'>{_kw(line.planned_peak_w)}</td>"
        f"<td class='n'>{_kw(line.drawn_peak_w)}</td><td class='n'>{over}</td>"
        f"<td>{_soc(line)}<br><small>{_target(line)}</small></td>"
        f"<td class='why'>{_mark(line)}{note}</td></tr>"
    )


def _cards(report: Report) -> str:
    if not report.vehicles:
        return ""
    cards = "".join(_card(line, report) for line in report.vehicles)
    return (
        "<section><h2>Power of each vehicle</h2><p class='keys'>"
        "<span class='k-plan'>planned</span><span class='k-drawn'>drawn</span>"
        "<span class='k-drawn k-over'>drawn, plan not kept</span></p>"
        f"<div class='cards'>{cards}</div></section>"
    )


def _card(line: VehicleLine, report: Report) -> str:
    times = [at for at, _ in (*line.planned, *line.drawn)]
    end = line.unplugged_at or report.ended_at
    chart = _Chart(
        size=(360, 150),
        span=(min((line.plugged_at, *times)), max((end, *times))),
        top_w=max(1.0, *_watts(line.planned), *_watts(line.drawn)),
        label=f"{_called(line)}: planned peak {_kw(line.planned_peak_w)}, "
        f"drawn peak {_kw(line.drawn_peak_w)}",
    )
    steps = _steps(line.planned, max((end, *times)))
    chart.area(steps, "plan")
    chart.line(steps, "edge")
    chart.line(line.drawn, "drawn" if line.kept else "over")
    is_drawn = bool(line.planned or line.drawn)
    return (
        f"<article class='{'' if line.kept else 'bad-card'}'>"
        f"<h3>{escape(_called(line))} <small>{escape(line.outlet)}</small>"
        f"<span class='push'>{_mark(line)}</span></h3>"
        f"<p><small>{line.drawn_wh / 1000:.1f} of {_kwh(line.planned_wh)} · "
        f"SoC {_soc(line)}</small></p>"
        f"{chart.render() if is_drawn else _NO_VALUES}</article>"
    )


# --- charts ---------------------------------------------------------------------


class _Chart:
    """Collects the parts of one SVG; time runs right, power runs up."""

    def __init__(
        self,
        *,
        size: tuple[int, int],
        span: tuple[datetime, datetime],
        top_w: float,
        label: str,
    ) -> None:
        self._width, self._height = size
        self._from_s = span[0].timestamp()
        self._to_s = max(span[1].timestamp(), self._from_s + 60)
        self._top_w = _nice_top(top_w)
        self._label = label
        self._parts: list[str] = []

    def area(self, points: Points, kind: str) -> None:
        """Fill from the points down to zero."""
        if points:
            floor = f"{self._y(0):.1f}"
            left, right = self._x(points[0][0]), self._x(points[-1][0])
            path = f"M{left:.1f} {floor}L{self._path(points)}L{right:.1f} {floor}Z"
            self._parts.append(f'<path class="{kind}" d="{path}"/>')

    def line(self, points: Points, kind: str) -> None:
        """Draw a line through the points."""
        if points:
            self._parts.append(f'<path class="{kind} line" d="M{self._path(points)}"/>')

    def level(self, watts: float, text: str) -> None:
        """Draw a power that must not be passed."""
        y, right = self._y(watts), self._width - RIGHT
        self._parts.append(
            f'<path class="cap line" d="M{LEFT} {y:.1f}H{right}"/>'
            f'<text class="told" x="{right}" y="{y - 5:.1f}" '
            f'text-anchor="end">{text}</text>'
        )

    def dot(self, at: datetime, watts: float, text: str) -> None:
        """Mark one moment."""
        x, y = self._x(at), self._y(watts)
        is_right = x > self._width * 0.7
        anchor, shift = ("end", -8) if is_right else ("start", 8)
        self._parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
            f'<text class="told" x="{x + shift:.1f}" y="{max(y - 6, 12):.1f}" '
            f'text-anchor="{anchor}">{text}</text>'
        )

    def render(self) -> str:
        """Give the SVG with its axes."""
        return (
            f'<svg viewBox="0 0 {self._width} {self._height}" role="img" '
            f'aria-label="{escape(self._label)}">'
            f"{''.join(self._axes())}{''.join(self._parts)}</svg>"
        )

    def _axes(self) -> Iterable[str]:
        right, floor = self._width - RIGHT, self._y(0)
        for share in (0.0, 0.5, 1.0):
            y = self._y(share * self._top_w)
            text = f"{share * self._top_w / 1000:g} kW"
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        for at_s in _ticks(self._from_s, self._to_s, self._width // 65):
            at = datetime.fromtimestamp(at_s, UTC)
            x = self._x(at)
            yield f'<path class="grid" d="M{x:.1f} {floor:.1f}v4"/>'
            yield (
                f'<text x="{x:.1f}" y="{self._height - 6}" '
                f'text-anchor="middle">{at:%H:%M}</text>'
            )

    def _path(self, points: Points) -> str:
        thin = _thinned(points, POINTS_DRAWN_MAX)
        return "L".join(f"{self._x(at):.1f} {self._y(watts):.1f}" for at, watts in thin)

    def _x(self, at: datetime) -> float:
        share = (at.timestamp() - self._from_s) / (self._to_s - self._from_s)
        return LEFT + (self._width - LEFT - RIGHT) * min(max(share, 0.0), 1.0)

    def _y(self, watts: float) -> float:
        share = min(max(watts / self._top_w, 0.0), 1.0)
        return self._height - BOTTOM - (self._height - BOTTOM - TOP) * share


def _steps(points: Points, end: datetime) -> Points:
    """Turn values that hold until the next point into the corners of their stairs."""
    if not points:
        return ()
    corners = [points[0]]
    for (_, held), (at, watts) in pairwise(points):
        corners += [(at, held), (at, watts)]
    return (*corners, (max(end, points[-1][0]), points[-1][1]))


def _thinned(points: Points, most: int) -> Points:
    """Keep at most ``most`` points; of each stretch the lowest and the highest stay."""
    if len(points) <= most:
        return points
    size = -(-len(points) // (most // 2 - 1))
    found = [points[0]]
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {min(stretch, key=_power), max(stretch, key=_power)}
        found += sorted(ends)
    return (*found, points[-1])


def _power(point: tuple[datetime, float]) -> float:
    return point[1]


def _watts(points: Points) -> Sequence[float]:
    return [watts for _, watts in points] or [0.0]


def _nice_top(watts: float) -> float:
    """Round up to a power whose half is readable on an axis, with some air."""
    wanted = max(watts, 1.0) * 1.08
    size = 1.0
    while size * 10 < wanted:
        size *= 10
    return next(
        size * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if size * step >= wanted
    )


def _ticks(from_s: float, to_s: float, most: int) -> list[int]:
    """Round times between two others, ``most`` or fewer."""
    minutes = (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440)
    span_s = to_s - from_s
    size_s = next((60 * item for item in minutes if span_s / (60 * item) <= most), 0)
    size_s = size_s or 86400 * -(-int(span_s) // (86400 * most))
    first = -(-int(from_s) // size_s) * size_s
    return list(range(first, int(to_s) + 1, size_s))


# --- words ----------------------------------------------------------------------


def _is_cap_passed(report: Report) -> bool:
    return report.peak_w > report.cap_w + CAP_TOLERANCE_W


def _called(line: VehicleLine) -> str:
    return line.name or line.vehicle_id


def _ocpp(line: VehicleLine) -> str:
    return f"OCPP {line.ocpp_version.removeprefix('ocpp')}" if line.ocpp_version else ""


def _mark(line: VehicleLine) -> str:
    return "<b class='good'>✓ kept</b>" if line.kept else "<b class='bad'>✗ not kept</b>"


def _soc(line: VehicleLine) -> str:
    return f"{_percent(line.soc_start)} → {_percent(line.soc_end)}"


def _target(line: VehicleLine) -> str:
    return f"target {line.soc_target:.0f} %" if line.soc_target is not None else ""


def _percent(value: float | None) -> str:
    return f"{value:.0f} %" if value is not None else "not known"


def _kw(watts: float) -> str:
    return f"{watts / 1000:.1f} kW"


def _kwh(watt_hours: float) -> str:
    return f"{watt_hours / 1000:.1f} kWh"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _clock(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%H:%M}" if at is not None else "not known"


_NO_VALUES = "<p>No values were recorded.</p>"

FOOTER = (
    "<footer>All times UTC. Power of a vehicle is measured at its outlet; total power and "
    "the cap are on the grid side, with the losses of charging.</footer>"
)
STYLE = """
:root{--ground:#f3f5f7;--panel:#fff;--ink:#14202b;--soft:#4d5b68;--line:#d5dce2;
--drawn:#0b66c3;--plan:#a9cdf0;--edge:#3f7fbd;--good:#0a6b3d;--warn:#8a5200;--bad:#b3151f;
--good-bg:#e2f4ea;--warn-bg:#fdf0d9;--bad-bg:#fde5e5}
@media(prefers-color-scheme:dark){:root{--ground:#0e1419;--panel:#172028;--ink:#e8eef3;
--soft:#a3b2bf;--line:#2c3944;--drawn:#5aaeff;--plan:#24486a;--edge:#6ea6da;--good:#5fd395;
--warn:#f4b95a;--bad:#ff8a8a;--good-bg:#12301f;--warn-bg:#37270c;--bad-bg:#421619}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.45 system-ui,
-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:76rem;margin:0 auto;padding:1rem}
header{border-left:8px solid;border-radius:10px;padding:1rem 1.3rem;margin-bottom:1rem;
overflow-wrap:anywhere}
header.good{background:var(--good-bg)}header.warn{background:var(--warn-bg)}
header.bad{background:var(--bad-bg)}
h1{font-size:1.8rem;line-height:1.2;margin:.1rem 0 .4rem}
.title{margin:0;color:var(--ink);font-weight:600}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.faults{color:var(--ink);margin:.3rem 0 .7rem;padding-left:1.2rem}
.checks{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;margin:.3rem 0 0;
padding:0}
section{background:var(--panel);border:1px solid var(--line);border-radius:10px;
padding:.9rem 1.1rem 1.1rem;margin-bottom:1rem}
h2{font-size:1.1rem;margin:0 0 .6rem}
h3{font-size:1rem;margin:0;display:flex;gap:.5rem;align-items:baseline;overflow-wrap:anywhere}
h3 .push{margin-left:auto;white-space:nowrap;font-size:.86rem}
small,dt,footer,.keys{font-size:.83rem;color:var(--soft);font-weight:400}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:1px;
background:var(--line);border:1px solid var(--line);border-radius:10px;overflow:hidden;
margin:0 0 1rem}
dl>div{background:var(--panel);padding:.6rem .9rem}dd{margin:0;font-weight:650}
.scroll{overflow-x:auto}.total svg{min-width:42rem}
table{width:100%;border-collapse:collapse}
th,td{text-align:left;vertical-align:top;padding:.42rem .55rem;
border-top:1px solid var(--line)}
thead th{border-top:0;font-size:.8rem;color:var(--soft);font-weight:600;
vertical-align:bottom}
td{white-space:nowrap}td.why{white-space:normal;min-width:9rem}.n{text-align:right}
tbody th{overflow-wrap:anywhere;min-width:7rem}
.bad-row{background:var(--bad-bg)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));
gap:.8rem}
article{border:1px solid var(--line);border-radius:8px;padding:.6rem .75rem .5rem;
min-width:0}
article p{margin:.1rem 0 .2rem}.bad-card{border:2px solid var(--bad)}
.keys{display:flex;gap:1.2rem;margin:0 0 .6rem}
.keys span::before{content:"";display:inline-block;width:18px;margin-right:.4rem}
.k-plan::before{height:10px;background:var(--plan);border-top:2px solid var(--edge)}
.k-drawn::before{border-top:3px solid var(--drawn);vertical-align:4px}
.keys .k-over::before{border-color:var(--bad)}
svg{display:block;width:100%;height:auto}
svg text{font-size:11px;fill:var(--soft);font-family:inherit}
svg .told{fill:var(--ink);font-weight:650;font-size:12px;paint-order:stroke;
stroke:var(--panel);stroke-width:3px}
.grid{stroke:var(--line);fill:none}
.fill{fill:var(--plan);opacity:.55}.plan{fill:var(--plan)}
.line{fill:none;stroke-width:1.75;stroke-linejoin:round}
.edge{stroke:var(--edge);stroke-width:1.25}.drawn{stroke:var(--drawn);stroke-width:2}
.over{stroke:var(--bad);stroke-width:2}
.cap{stroke:var(--bad);stroke-dasharray:7 4}.dot{fill:var(--ink);stroke:var(--panel)}
@media print{section,article{break-inside:avoid}}
"""
"""Colours as on the status page; light and dark by the reader's choice."""
