"""``xent play``: the interactive page, in the browser."""

from __future__ import annotations

import threading
import webbrowser
from typing import TYPE_CHECKING

import click

from xent.cli.inputs import Typed, of_a_call
from xent.cli.mistakes import BadInput
from xent.contract.errors import mistake

if TYPE_CHECKING:
    from xent.cli.serving import Server

PORT = 8010

EXAMPLES = """\b
Examples:
  xent play                         p = (0.1, 0.7, 0.2), and the first is true
  xent play --logits 2,1,0 --target cat --names cat,dog,bird
  xent play --file batch.npz --row 3
  xent play --no-browser --port 0   prints the address, on any free port
"""


@click.command(short_help="Play with the loss in the browser, on your numbers.", epilog=EXAMPLES)
@of_a_call
@click.option(
    "--port", type=click.IntRange(0, 65535),
    help=f"Of 127.0.0.1; 0 is any free one.  [default: {PORT}, or a free one]",
)  # fmt: skip
@click.option("--browser/--no-browser", default=True, help="Open it, or print the address alone.")
def play(typed: Typed, port: int | None, browser: bool) -> None:
    """Open one call of the cross-entropy as a page whose numbers can be moved.

    The page is served from this machine to this machine only, out of memory, until Ctrl-C. It
    asks nothing of the network. xent explain -o page.html writes the same page to a file.
    """
    from xent.cli.serving import until_stopped
    from xent.explanation.page import page_of, policy

    page = page_of(typed.explanation("gradient"))
    if page is None:
        raise BadInput(
            "logits: expected a position that counts, with two classes or more and a finite "
            "logit; there is nothing to play with. xent explain shows what there is."
        )
    with _bound(port, page, policy()) as server:
        with until_stopped():
            click.echo(server.address)
            if browser:
                click.echo("Ctrl-C stops it.", err=True)
                # Aside: a browser of the terminal returns when it is closed.
                threading.Thread(
                    target=webbrowser.open, args=(server.address,), daemon=True
                ).start()
            server.serve_forever()
        click.echo("Stopped.", err=True)


def _bound(port: int | None, page: str, policy: str) -> Server:
    """A server on the port that was asked for; on another one if none was."""
    from xent.cli.serving import Server

    try:
        return Server(PORT if port is None else port, page, policy)
    except OSError as error:
        if port is None:
            server = Server(0, page, policy)
            number = server.server_address[1]
            click.echo(f"Port {PORT} is in use; {number} is free.", err=True)
            return server
        raise mistake(
            BadInput, "--port", expected="a port that is free",
            got=f"{port}: {(error.strerror or str(error)).lower()}", remedy="0 is any free one.",
        ) from error  # fmt: skip
