"""What ranks say of their calls, and the verdict: the same words give the same error everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from xent.contract.errors import mistake


@dataclass(frozen=True)
class Statement:
    """What a rank says of its call."""

    error: str | None = None
    positions: tuple[int, ...] = ()
    classes: int = 0
    """Its own."""
    weights: int | None = None
    """How many class weights it was given."""
    labels: tuple[int, int] | None = None
    """The least and the largest, where they can be looked at."""
    digest: int | None = None
    """The same for the same labels, and for others hardly ever; where they can be looked at."""
    same: dict[str, str] = field(default_factory=dict)
    """What has to be the same on every rank, by name."""


def check_same(said: list[Statement]) -> None:
    """Raises the same error on every rank."""
    for rank, statement in enumerate(said):
        if statement.error is not None:
            raise _absent(rank, statement.error)
    first = said[0]
    for rank, statement in enumerate(said):
        if statement.positions != first.positions:
            raise mistake(
                ValueError,
                "input",
                expected="the same positions on every rank of the group",
                got=f"{first.positions} on rank 0 and {statement.positions} on rank {rank}",
                remedy="Ranks share the classes of the same rows; for shares of a batch see "
                "dp_group.",
            )
        for name, here in first.same.items():
            there = statement.same.get(name)
            if here != there:
                raise mistake(
                    ValueError,
                    name,
                    expected="the same on every rank of the group",
                    got=f"{here} on rank 0 and {there} on rank {rank}",
                )


def check_labels(said: list[Statement], own: int, classes: int) -> bool:
    """Raises what other ranks are about to raise of their labels; there it is said in full.

    Returns whether all are in bounds.
    """
    wrong = {
        rank: span
        for rank, span in ((rank, statement.labels) for rank, statement in enumerate(said))
        if span is not None and not 0 <= span[0] <= span[1] < classes
    }
    for rank, (low, high) in wrong.items():
        if own not in wrong:
            words = f"target has labels from {low} to {high}; expected 0..{classes - 1}."
            raise _absent(rank, words)
    return not wrong


def check_sizes(said: list[Statement], own: int, sizes: list[int]) -> None:
    """Raises what other ranks are about to raise of logits that are not those of a map."""
    wrong = [rank for rank, statement in enumerate(said) if statement.classes != sizes[rank]]
    if wrong and own not in wrong:
        words = (
            f"input has {said[wrong[0]].classes} classes; class_shards was told {sizes[wrong[0]]}."
        )
        raise _absent(wrong[0], words)


def check_digests(said: list[Statement]) -> None:
    """Raises the same error on every rank."""
    digests = [statement.digest for statement in said]
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise mistake(
                ValueError,
                "target",
                expected="the same labels on every rank of the group",
                got=f"others on rank {rank} than on rank 0",
                remedy="They count over the classes of all ranks; none is masked or shifted. Which "
                'differs first? Pass check="values".',
            )


def weights_are_whole(said: list[Statement], classes: int) -> bool:
    """Whether the ranks were given the weights of all classes, and not each those of its own."""
    given = [statement.weights for statement in said]
    if None in given or all(statement.weights == statement.classes for statement in said):
        return False
    if all(count == classes for count in given):
        return True
    counts = ", ".join(
        f"{statement.weights} for {statement.classes} classes on rank {rank}"
        for rank, statement in enumerate(said)
    )
    raise mistake(
        RuntimeError,
        "weight",
        expected=f"one factor for each of the {classes} classes on every rank, or for each of its "
        "own on every rank",
        got=counts,
    )


def _absent(rank: int, words: str) -> RuntimeError:
    return RuntimeError(f"group: rank {rank} could not take part; there: {words}")
