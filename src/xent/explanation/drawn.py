"""Whatever is made of blocks can be drawn in every way there is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from xent.explanation.blocks import Block

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType


class Drawn(ABC):
    """Prints in a terminal, shows itself in a notebook, writes itself as Markdown, HTML, text."""

    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """What there is to draw, in order."""

    def to_text(self, width: int = 88) -> str:
        """Plain text without colours or escape sequences."""
        from xent.explanation.terminal import as_text

        return as_text(self.blocks(), width)

    def to_markdown(self) -> str:
        """Markdown with tables, as GitHub and notebooks read it."""
        from xent.explanation.markdown import as_markdown

        return as_markdown(self.blocks())

    def to_html(self) -> str:
        """A page that stands alone: no script, no network, dark and light by the reader's wish."""
        from xent.explanation.html import as_page

        return as_page(self.blocks())

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        from xent.explanation.html import as_fragment

        return as_fragment(self.blocks())

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        from xent.explanation.terminal import drawn

        return drawn(self.blocks(), options.max_width)
