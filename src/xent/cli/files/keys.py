"""Which key of a file holds what."""

from __future__ import annotations

import reprlib
from collections.abc import Hashable, Iterable

from xent.cli.arrays import shown
from xent.cli.mistakes import BadInput
from xent.contract.errors import mistake

KEYS = {
    "logits": ("logits", "input"),
    "target": ("target", "targets", "label", "labels"),
    "weight": ("weight", "weights"),
    "names": ("names", "class_names", "classes"),
}
ACCEPTED = ", ".join("|".join(keys) for keys in KEYS.values())
MANY, LONGEST = 8, 40  # keys in a message, and letters of a key


def role(key: Hashable) -> str | None:
    """What a key holds, by its name in any case; None for an unknown key."""
    name = key.strip().lower() if isinstance(key, str) else None
    return next((role for role, keys in KEYS.items() if name in keys), None)


def roles(keys: Iterable[Hashable], name: str) -> dict[str, Hashable]:
    """Says which key holds the logits, and which the rest; a single unknown one holds the logits.

    Nothing else is passed over: a misspelt ``weights`` would change the numbers without a word.
    """
    found: dict[str, Hashable] = {}
    unknown: list[Hashable] = []
    every = list(keys)
    for key in every:
        meaning = role(key)
        if meaning is None:
            unknown.append(key)
        elif meaning in found:
            raise mistake(
                BadInput,
                name,
                expected=f"one key for the {meaning}",
                got=f"{reprlib.repr(found[meaning])} and {reprlib.repr(key)}",
                remedy="Keep one of them.",
            )
        else:
            found[meaning] = key
    if "logits" not in found and len(unknown) == 1:
        found["logits"] = unknown.pop()
    if unknown or "logits" not in found:
        raise mistake(
            BadInput,
            name,
            expected=f"logits and, if wanted, the rest under the keys {ACCEPTED}",
            got=_listed(every),
            remedy="Save only these, under these keys.",
        )
    return found


def place(name: str, key: Hashable) -> str:
    """What stands under a key, in the words of a message."""
    return f"{name}: {shown(str(key)[:LONGEST])}"


def _listed(keys: list[Hashable]) -> str:
    """The keys of a file, in the words of a message."""
    if not keys:
        return "no keys"
    few = ", ".join(reprlib.repr(key) for key in keys[:MANY])
    return f"the keys {few}" + (f" and {len(keys) - MANY} more" if len(keys) > MANY else "")
