"""Blocks as HTML: a fragment for notebooks, or a page of its own. No script, no network."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from xent.explanation.blocks import (
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
.xent .bar{display:inline-block;width:7em;height:.8em;position:relative}
.xent .bar::before{content:"";position:absolute;left:0;top:-.2em;bottom:-.2em;
 border-left:1px solid currentColor;opacity:.6}
.xent .bar.signed::before{left:50%}
.xent .bar i{position:absolute;top:0;bottom:0;background:#4c8dd6}
.xent .bar i.down{background:#d9822b}
"""
_BREAK = "\n"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def as_fragment(blocks: Iterable[Block]) -> str:
    """A ``<div>`` with its style: what a notebook shows."""
    body = "\n".join(_block(block) for block in blocks)
    return f'<div class="xent"><style>{STYLE}</style>\n{body}\n</div>'


def as_page(blocks: Iterable[Block], title: str = "Cross-entropy, explained") -> str:
    """A whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title></head>\n"
        f'<body style="margin:2em">{as_fragment(blocks)}</body></html>\n'
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
    begin, end = cell.span
    kind = ' class="down"' if cell.value < 0 else ""
    zero = " signed" if cell.signed else ""
    return (
        f'<span class="bar{zero}" aria-hidden="true"><i{kind} '
        f'style="left:{100 * begin:.1f}%;width:{100 * (end - begin):.1f}%"></i></span>'
    )
