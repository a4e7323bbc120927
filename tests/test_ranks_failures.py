"""Ranks that do not mean the same call, or are gone: a clear error on every rank, and no hang."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest
import torch

import xent
from ranks import GONE, Failure, Rank, pool

CALLS = {
    "positions": (
        lambda rank, call: call | {"input": torch.zeros(4 + (rank == 2), 3),
                                   "target": torch.zeros(4 + (rank == 2), dtype=torch.int64)},
        ValueError, "input: expected the same positions on every rank of the group; got (4,) on "
        "rank 0 and (5,) on rank 2.",
    ),
    "dtype": (
        lambda rank, call: call | ({"input": torch.zeros(4, 3).double()} if rank == 1 else {}),
        ValueError, "input: expected the same on every rank of the group; got float32 on rank 0 "
        "and float64 on rank 1.",
    ),
    "kind of labels": (
        lambda rank, call: call | ({"target": torch.rand(4, 3)} if rank == 1 else {}),
        ValueError, "target: expected the same on every rank of the group; got class indices on "
        "rank 0 and float32 probabilities on rank 1.",
    ),
    "smoothing": (
        lambda rank, call: call | {"label_smoothing": 0.1 * (rank == 0)},
        ValueError, "label_smoothing: expected the same on every rank of the group; got 0.1 on "
        "rank 0 and 0.0 on rank 1.",
    ),
    "reduction": (
        lambda rank, call: call | {"reduction": "sum" if rank == 2 else "mean"},
        ValueError, "reduction: expected the same on every rank",
    ),
    "sample weights": (
        lambda rank, call: call | ({"sample_weight": torch.ones(4)} if rank == 2 else {}),
        ValueError, "sample_weight: expected the same on every rank of the group; got none on "
        "rank 0 and float32 on rank 2.",
    ),
    "values of labels": (
        lambda rank, call: call | {"target": torch.tensor([0, 1, 2 + 3 * (rank == 1), 3]),
                                   "check": "values"},
        ValueError, "target[2]: expected the same on every rank of the group; got 2 on rank 0 and "
        "5 on rank 1.",
    ),
    "ignored labels": (
        lambda rank, call: call | {"target": torch.tensor([0, 1, -100 if rank == 2 else 0, 3]),
                                   "check": "values"},
        ValueError, "target[2]: expected the same on every rank of the group; got 0 on rank 0 and "
        "an ignored label on rank 2.",
    ),
    "check": (
        lambda rank, call: call | {"check": "values" if rank else None},
        ValueError,
        "check: expected the same on every rank of the group; got None on rank 0 and 'values' "
        "on rank 1.",
    ),
    "some of the class weights": (
        lambda rank, call: call | {"weight": torch.ones(4 if rank == 1 else 3)},
        RuntimeError,
        "weight: expected one factor for each of the 9 classes on every rank, or for each of its "
        "own on every rank; got 3 for 3 classes on rank 0, 4 for 3 classes on rank 1, 3 for 3",
    ),
    "all class weights on one rank": (
        lambda rank, call: call | {"weight": torch.ones(9 if rank == 1 else 3)},
        RuntimeError,
        "weight: expected one factor for each of the 9 classes on every rank, or",
    ),
    "what is differentiated": (
        lambda rank, call: call | {"sample_weight": torch.ones(4).requires_grad_(rank == 1)},
        ValueError,
        "sample_weight: expected the same on every rank of the group; got float32 on rank 0 and "
        "float32, differentiated on rank 1.",
    ),
    "denominators": (
        lambda rank, call: call | {"denominator": torch.tensor(2.0 + rank), "check": "values"},
        ValueError,
        "denominator: expected the same on every rank of the group; got 2.0 on rank 0 and 3.0 on",
    ),
    "values of sample weights": (
        lambda rank, call: call | {"sample_weight": torch.tensor([1.0, 2.0, 3.0 + rank, 4.0]),
                                   "check": "values"},
        ValueError, "sample_weight[2]: expected the same on every rank of the group; got 3.0 on "
        "rank 0 and 4.0 on rank 1.",
    ),
}  # fmt: skip


def called(rank: Rank, name: str, linear: bool) -> None:
    change = CALLS[name][0]
    call = {"input": torch.zeros(4, 3), "target": torch.tensor([0, 1, 2, 8])}
    call = change(rank.rank, call)
    if linear:
        call["linear_weight"] = torch.zeros(3, 3, dtype=call["input"].dtype)
        xent.linear_cross_entropy(**call, group=rank.group)
    else:
        xent.cross_entropy(**call, group=rank.group)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("linear", [False, True], ids=["logits", "hidden"])
def test_ranks_that_mean_different_calls_all_say_so(ranks, name, linear) -> None:
    _, kind, text = CALLS[name]
    for outcome in ranks.outcomes(3, called, name, linear):
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.error, kind), outcome.trace
        assert text in str(outcome.error)
    assert_still_there(ranks)


def other_call(rank: Rank) -> None:
    logits, target = torch.zeros(4, 3), torch.tensor([0, 1, 2, 8])
    call = xent.row_statistics if rank.rank == 1 else xent.cross_entropy
    call(logits, target, group=rank.group)


def test_ranks_in_calls_of_different_functions_all_say_so(ranks) -> None:
    for outcome in ranks.outcomes(3, other_call):
        assert isinstance(outcome.error, ValueError), outcome.trace
        assert "group: expected the same on every rank of the group; got a call with" in str(
            outcome.error
        )


def local_labels(rank: Rank) -> None:
    """As other libraries want them: shifted, and masked where they are on another rank."""
    start = 3 * rank.rank
    target = torch.tensor([0, 1, 4, 8])
    target = torch.where((target >= start) & (target < start + 3), target - start, -100)
    xent.cross_entropy(torch.zeros(4, 3), target, group=rank.group)


def test_labels_that_count_from_a_rank_s_own_classes_are_refused(ranks) -> None:
    for outcome in ranks.outcomes(3, local_labels):
        assert isinstance(outcome.error, ValueError), outcome.trace
        assert "target: expected the same labels on every rank of the group; got others on" in str(
            outcome.error
        )


def whole_probabilities(rank: Rank) -> None:
    xent.cross_entropy(torch.zeros(4, 3), torch.rand(4, 9), group=rank.group)


def test_probabilities_of_all_classes_are_refused_in_words(ranks) -> None:
    for outcome in ranks.outcomes(3, whole_probabilities):
        assert "probabilities are those of this rank's classes" in str(outcome.error)


def differently_followed(rank: Rank) -> None:
    hidden = torch.zeros(4, 3).requires_grad_(rank.rank == 0)
    xent.linear_cross_entropy(
        hidden, torch.zeros(3, 3), torch.tensor([0, 1, 2, 8]), group=rank.group
    )


def test_hidden_states_are_differentiated_on_all_ranks_or_on_none(ranks) -> None:
    for outcome in ranks.outcomes(3, differently_followed):
        assert isinstance(outcome.error, ValueError), outcome.trace
        assert "input: expected the same on every rank of the group; got float32, diff" in str(
            outcome.error
        )


def differing_masks(rank: Rank) -> None:
    valid = torch.tensor([True, True, rank.rank != 2, True])
    xent.row_statistics(torch.zeros(4, 3), valid=valid, group=rank.group, check="values")


def test_masks_of_positions_are_compared(ranks) -> None:
    for outcome in ranks.outcomes(3, differing_masks):
        assert isinstance(outcome.error, ValueError), outcome.trace
        assert "valid[2]: expected the same on every rank of the group; got True on rank 0 and" in (
            str(outcome.error)
        )


def same_in_other_words(rank: Rank) -> float:
    words = [(0, -100), (0.0, [-100]), (np.float32(0), {-100})]
    smoothing, ignored = words[rank.rank]
    logits, target = torch.zeros(4, 3), torch.tensor([0, 1, 2, 8])
    xent.row_statistics(logits, target, ignore_index=ignored, group=rank.group)
    options = {"label_smoothing": smoothing, "ignore_index": ignored}
    return xent.cross_entropy(logits, target, **options, group=rank.group).item()


def test_what_means_the_same_is_the_same(ranks) -> None:
    assert len(set(ranks.run(3, same_in_other_words))) == 1


def assert_still_there(ranks) -> None:
    """The group can be used after a mistake."""
    found = ranks.run(3, right, None)
    assert len(set(found)) == 1


def right(rank: Rank, _: None) -> float:
    target = torch.tensor([0, 1, 2, 8])
    return xent.cross_entropy(torch.zeros(4, 3), target, group=rank.group).item()


def alone_wrong(rank: Rank, what: str) -> None:
    logits, target, options = torch.zeros(4, 3), torch.tensor([0, 1, 2, 8]), {}
    if rank.rank == 1:
        if what == "label":
            target = torch.tensor([0, 1, 2, 9])
        elif what == "shape":
            target = target[:3]
        elif what == "kind":
            target = [0, 1, 2, 8]  # type: ignore[assignment]  # what is wrong
        elif what == "smoothing":
            options["label_smoothing"] = 2.0
        elif what == "reduction":
            options["reduction"] = "men"
        elif what == "dtype":
            options["dtype"] = torch.int64
        elif what == "uncounted label":
            target = torch.tensor([0, 9, 2, 8])
    if what == "uncounted label":
        options["sample_weight"] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    xent.cross_entropy(logits, target, group=rank.group, **options)


@pytest.mark.parametrize(
    ("what", "kind", "text", "elsewhere"),
    [
        ("label", IndexError, "target[3] is 9; expected 0..8", "target has labels from 0 to 9"),
        ("reduction", ValueError, "reduction: expected", "ValueError: reduction: expected"),
        ("dtype", TypeError, "dtype: expected", "TypeError: dtype: expected"),
        ("uncounted label", IndexError, "target[1] is 9", "target has labels from 0 to 9"),
        ("shape", ValueError, "target: expected class indices of shape (4,)", "ValueError: target"),
        ("kind", TypeError, "target: expected a Tensor", "TypeError: target: expected a Tensor"),
        ("smoothing", RuntimeError, "label_smoothing: expected", "RuntimeError: label_smoothing"),
    ],
)  # fmt: skip
def test_a_mistake_of_one_rank_is_named_there_and_known_elsewhere(
    ranks, what, kind, text, elsewhere
) -> None:
    first, own, last = ranks.outcomes(3, alone_wrong, what)
    assert isinstance(own.error, kind), own.trace
    assert text in str(own.error)
    for other in (first, last):
        assert isinstance(other.error, RuntimeError), other.trace
        assert "group: rank 1 could not take part; there: " in str(other.error)
        assert elsewhere in str(other.error)
    assert_still_there(ranks)


MAPS = {
    "a gap": (((0, 3), (4, 6), (6, 9)), ValueError,
              "a gap, classes 3..3, between rank 0 and rank 1"),
    "an overlap": (((0, 3), (6, 9), (2, 6)), ValueError,
                   "an overlap, classes 2..2, between rank 0 and rank 2"),
    "no start": (((1, 3), (3, 4), (4, 9)), ValueError, "a gap, classes 0..0, between the start"),
    "backwards": (((0, 3), (4, 3), (3, 9)), ValueError, "(4, 3) on rank 1"),
    "two kinds": ((3, (3, 6), 3), ValueError, "3 on rank 0, (3, 6) on rank 1, 3 on rank 2"),
}  # fmt: skip


def mapped(rank: Rank, ranges: Any) -> Any:
    shards = xent.class_shards(ranges[rank.rank], rank.group)
    return shards.ranges, shards.own, shards.classes


@pytest.mark.parametrize("name", MAPS)
def test_a_map_with_gaps_or_overlaps_is_refused_on_every_rank(ranks, name) -> None:
    ranges, kind, text = MAPS[name]
    for outcome in ranks.outcomes(3, mapped, ranges):
        assert isinstance(outcome.error, kind), outcome.trace
        assert text in str(outcome.error)


def test_ranges_may_come_in_any_order_and_be_empty(ranks) -> None:
    ranges = ((4, 9), (4, 4), (0, 4))
    for rank, found in enumerate(ranks.run(3, mapped, ranges)):
        assert found == (ranges, (*ranges[rank], 9), 9)
    assert ranks.run(3, mapped, (3, 0, 6))[1][0] == ((0, 3), (3, 3), (3, 9))


@pytest.mark.parametrize("wrong", [-1, True, 2.5, (1, 2, 3), "3"], ids=repr)
def test_what_is_no_count_is_refused_on_every_rank(ranks, wrong) -> None:
    first, own, last = ranks.outcomes(3, mapped, (3, wrong, 3))
    assert isinstance(own.error, TypeError | ValueError)
    assert str(own.error).startswith("classes: expected how many classes this rank holds")
    for other in (first, last):
        assert "group: rank 1 could not take part; there: classes: expected" in str(other.error)


def other_shard(rank: Rank) -> None:
    shards = xent.class_shards(3, rank.group)
    xent.cross_entropy(torch.zeros(2, 4), torch.tensor([0, 8]), group=shards)


def test_logits_are_those_that_the_map_says(ranks) -> None:
    for rank, outcome in enumerate(ranks.outcomes(3, other_shard)):
        assert isinstance(outcome.error, ValueError), outcome.trace
        expected = f"input: expected logits of 3 classes on rank {rank}, which begin at {3 * rank}"
        assert str(outcome.error).startswith(expected)


def one_other_shard(rank: Rank) -> None:
    shards = xent.class_shards(3, rank.group)
    logits = torch.zeros(2, 3 + (rank.rank == 1))
    xent.cross_entropy(logits, torch.tensor([0, 8]), group=shards, check="values")


def test_with_check_all_ranks_know_of_logits_that_are_not_the_map_s(ranks) -> None:
    first, own, last = ranks.outcomes(3, one_other_shard)
    assert "input: expected logits of 3 classes on rank 1" in str(own.error)
    for other in (first, last):
        assert isinstance(other.error, RuntimeError), other.trace
        assert "rank 1 could not take part; there: input has 4 classes; class_shards was" in str(
            other.error
        )


def test_what_is_no_group_is_refused() -> None:
    with pytest.raises(TypeError, match="group: expected a ProcessGroup or DeviceMesh"):
        xent.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), group="tp")
    outside = torch.distributed.GroupMember.NON_GROUP_MEMBER
    with pytest.raises(TypeError, match=r"group: expected .* got a group without it"):
        xent.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), group=outside)


TIMEOUT = 3.0
"""Seconds, of a group that a rank is missing in."""


def gone(rank: Rank, how: str, shards: bool) -> float:
    group = xent.class_shards(3, rank.group) if shards else rank.group
    if rank.rank == 1 and how == "dead":
        os._exit(1)
    if rank.rank == 1:
        time.sleep(2 * TIMEOUT)
    began = time.monotonic()
    with pytest.raises(
        RuntimeError, match=r"^group: expected .* from every rank\. Has a rank ended"
    ):
        xent.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 4]), group=group)
    return time.monotonic() - began


@pytest.mark.parametrize("how", ["dead", "late"])
@pytest.mark.parametrize("shards", [False, True], ids=["asked", "told"])
def test_a_rank_that_is_gone_is_said_within_the_timeout(tmp_path, how, shards) -> None:
    with pool(tmp_path, most=2, patience=TIMEOUT) as ranks:
        first, second = ranks.outcomes(2, gone, how, shards)
    assert first < 10 * TIMEOUT  # on a busy machine; without one gloo waits for half an hour
    if how == "dead":
        assert second is GONE
