"""Blocks as HTML: a fragment for notebooks, or a page of its own. No script, no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape

from xent.explanation.blocks import (
    Bar,
    Block,
    Cell,
    Code,
    Formula,
    Heading,
    Paragraph,
    Row,
    Table,
)

# Colours come from where it is shown (currentColor), so that it is readable in dark and light.
STYLE = """
.xent{color:inherit;font:15px/1.5 system-ui,sans-serif;max-width:60em}
.xent h1,.xent h2,.xent h3{font-size:1.1em;margin:1.2em 0 .3em}
.xent h1{font-size:1.35em}
.xent p{margin:.4em 0;max-width:45em}
.xent pre{margin:.4em 0;padding:.5em .8em;overflow-x:auto;white-space:pre;color:inherit;
 background:color-mix(in srgb,currentColor 7%,transparent);border-radius:4px;
 font:13px/1.5 ui-monospace,monospace}
.xent .wide{overflow-x:auto}
.xent table{border-collapse:collapse;color:inherit;background:none;margin:.4em 0;font-size:.93em;
 font-variant-numeric:tabular-nums}
.xent caption{text-align:left;white-space:nowrap;font-style:italic;padding:.2em 0;color:inherit}
.xent th,.xent td{padding:.15em .6em;text-align:right;border:0;background:none;color:inherit;
 white-space:nowrap}
.xent th:first-child,.xent td:first-child{text-align:left}
.xent thead th{border-bottom:1px solid currentColor;font-weight:600;vertical-align:bottom}
.xent tr.total td,.xent tr.total th{border-top:1px solid currentColor;font-weight:600}
.xent tr.target td,.xent tr.target th{font-weight:600;
 background:color-mix(in srgb,#2a9d5c 18%,transparent)}
.xent tr.rest{opacity:.75}
.xent tbody th{font-weight:inherit}
.xent .xent-bar{display:inline-block;width:7em;height:.8em;overflow:visible;vertical-align:middle}
.xent .xent-bar rect{fill:#4c8dd6}
.xent .xent-bar rect.down{fill:#d9822b}
.xent .xent-bar line{stroke:currentColor;opacity:.6}
"""
_BREAK = "\n"
_MARGIN = "body{margin:2em}\n"


def as_fragment(blocks: Iterable[Block]) -> str:
    """A ``<div>`` with its style: what a notebook shows."""
    return f"<div><style>{STYLE}</style>\n{as_body(blocks)}\n</div>"


def as_body(blocks: Iterable[Block]) -> str:
    """The ``<div>`` without ``STYLE``, for a page that has it already.

    No element has a ``style`` of its own: a policy that allows no inline style leaves it whole.
    """
    body = "\n".join(_block(block) for block in blocks)
    return f'<div class="xent">\n{body}\n</div>'


def digest(text: str) -> str:
    """What a content security policy calls an inline script or style: by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def as_page(blocks: Iterable[Block], title: str = "Cross-entropy, explained") -> str:
    """A whole document."""
    style = STYLE + _MARGIN
    policy = f"default-src 'none'; style-src {digest(style)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body>{as_body(blocks)}</body></html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Formula(text) | Code(text):
            return f"<pre>{escape(text.rstrip())}</pre>"
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    headers = "".join(
        f'<th scope="col">{escape(header).replace(_BREAK, "<br>")}</th>' for header in table.headers
    )
    rows = "\n".join(_row(row) for row in table.rows)
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{headers}</tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(row: Row) -> str:
    first, *others = row.cells
    role = f' class="{row.role}"' if row.role else ""
    cells = "".join(f"<td>{_cell(cell)}</td>" for cell in others)
    return f'<tr{role}><th scope="row">{_cell(first)}</th>{cells}</tr>'


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    return _bar(cell)


def _bar(bar: Bar) -> str:
    """A drawing, whose lengths are attributes and not styles."""
    begin, end = bar.span
    kind = ' class="down"' if bar.value < 0 else ""
    zero = "50%" if bar.signed else "0"
    return (
        '<svg class="xent-bar" aria-hidden="true">'
        f'<rect{kind} x="{100 * begin:.1f}%" width="{100 * (end - begin):.1f}%" height="100%"/>'
        f'<line x1="{zero}" x2="{zero}" y1="-20%" y2="120%"/></svg>'
    )
