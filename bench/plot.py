# Copyright European Organization for Nuclear Research (CERN) since 2012
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#    http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The plot of a report: an SVG that needs no library."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from report import REFERENCE, Row

WIDTH, LEFT, LINE = 760, 190, 18
_LOWEST, _HIGHEST = 0.25, 64.0
_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


def plot(tables: Mapping[str, Sequence[Row]]) -> str:
    """One panel for each table: a dot at the median, a line from the best round to the worst, as multiples of the reference's median."""
    parts: list[str] = []
    top = 30
    for heading, rows in tables.items():
        shown = [row for row in rows if row.ratio is not None]
        if not shown:
            continue
        parts += [_text(LEFT, top, heading, 'font-weight="bold"'), *_panel(shown, top + 8)]
        top += 8 + LINE * len(shown) + 40
    body = '\n'.join([_text(10, 16, f'Time for a file, as a multiple of that of {REFERENCE} (logarithmic)'), *parts])
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" {style}>\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'


def _panel(rows: Sequence[Row], top: int) -> Iterable[str]:
    bottom = top + LINE * len(rows)
    for tick in _TICKS:
        colour = '#888' if tick == 1 else '#ddd'
        yield f'<path d="M{_x(tick):.1f} {top}V{bottom}" stroke="{colour}"/>'
        yield _text(_x(tick), bottom + 13, f'{tick:g}', 'text-anchor="middle" font-size="10"')
    for number, row in enumerate(rows):
        y = top + LINE * number + LINE // 2
        scale = (row.ratio or 1) / row.wall if row.wall else 1
        colour = '#c33' if row.contestant.startswith('rucio-s3') or row.contestant == 'class' else '#357'
        yield _text(LEFT - 8, y + 4, row.contestant, 'text-anchor="end"')
        yield f'<path d="M{_x(row.lowest * scale):.1f} {y}H{_x(row.highest * scale):.1f}" stroke="{colour}" stroke-width="2"/>'
        yield f'<circle cx="{_x(row.wall * scale):.1f}" cy="{y}" r="4" fill="{colour}"/>'


def _x(ratio: float) -> float:
    inside = min(max(ratio, _LOWEST), _HIGHEST)
    return LEFT + (WIDTH - LEFT - 30) * math.log(inside / _LOWEST) / math.log(_HIGHEST / _LOWEST)


def _text(x: float, y: float, text: str, more: str = '') -> str:
    return f'<text x="{x:.1f}" y="{y}" {more}>{escape(text)}</text>'
