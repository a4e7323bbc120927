"""The sharded language model: its curve is that of one process, and a wrong one would be seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner, Result
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import lm_sequences
import lm_training
import tp_ranks
import tp_run
import tp_training
import xent
from lm_model import LanguageModel
from tensor_parallel import main

PROGRAM = Path(__file__).parent.parent / "examples" / "tensor_parallel.py"
WORDS = ("the", "loss", "of", "a", "token", "is", "its", "logarithm", "and", "no", "less")
SMALL = ("--width", 16, "--layers", 1, "--heads", 2, "--context", 16)
SMALL += ("--batch-size", 4, "--steps", 6)


@pytest.fixture(autouse=True)
def _quiet_backend(monkeypatch) -> Iterator[None]:
    """Kernels that are compiled for the first time say so on stderr."""
    monkeypatch.setenv("XENT_BACKEND", "torch")  # of the programs that are started
    with xent.backend("torch"):
        yield


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Six documents of different lengths: some sequences end in padding."""
    folder = tmp_path_factory.mktemp("texts")
    generator = torch.Generator().manual_seed(3)
    for number in range(6):
        order = torch.randint(len(WORDS), (40 * (number + 1),), generator=generator)
        (folder / f"{number}.txt").write_text(" ".join(WORDS[i] for i in order.tolist()))
    return folder


def train(*options: object) -> Result:
    clean = {"NO_COLOR": None, "FORCE_COLOR": None, "COLUMNS": "100"}
    return CliRunner().invoke(main, list(map(str, (*SMALL, *options))), env=clean)


def torchrun(*options: object) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", "2", PROGRAM, *SMALL, *options]
    alone = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=120, env=alone
    )


# Two ranks


@pytest.mark.parametrize("wrap", ["fsdp", "ddp"])
def test_two_ranks_draw_the_curve_of_one_process(wrap: str, texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    source = ("--text", texts, "--suffix", ".txt", "--vocabulary", 271)
    done = torchrun(*source, "--wrap", wrap, "--json", file)
    assert done.returncode == 0, done.stderr
    run = json.loads(file.read_text())
    assert run["settings"]["ranks"] == 2
    assert run["shards"] == [[0, 135], [135, 271]]
    sharded, whole = ([step["loss"] for step in run[kind]] for kind in ("sharded", "whole"))
    assert len(sharded) == len(whole) == 6
    assert sharded == pytest.approx(whole, rel=0, abs=1e-5)
    assert whole[-1] < whole[0] - 0.05  # there is something to compare
    norms = [[step["norm"] for step in run[kind]] for kind in ("sharded", "whole")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-9)
    assert max(norms[1]) > 1  # some gradients are shortened
    assert run["largest_difference"] == max(abs(a - b) for a, b in zip(sharded, whole, strict=True))
    assert done.stdout.count("Ranks: 2") == done.stdout.count("The losses differ by") == 1


def test_of_two_ranks_one_says_what_is_wrong(tmp_path: Path) -> None:
    done = torchrun("--text", tmp_path / "none")
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert f"There is no folder {tmp_path / 'none'}" in errors[0]
    assert "(exitcode: 2) local_rank: 0" in done.stderr  # torchrun makes 1 of it
    assert done.returncode != 0


# The gradient


def padded_rows(rows: int) -> tuple[Tensor, Tensor]:
    inputs, labels = torch.randint(20, (2, rows, 6))
    labels[0, 1:] = labels[-1, 4:] = -100
    return inputs, labels


def small_body() -> LanguageModel:
    return LanguageModel(20, 6, width=8, layers=1, heads=2).double()


def averaged_gradients(
    body: LanguageModel, inputs: Tensor, of_states: Tensor, share: Callable[..., Tensor]
) -> list[Tensor]:
    """What DDP and FSDP would leave after three ranks' backward."""
    for rank, own in enumerate(inputs.chunk(3)):
        body(own).backward(share(of_states, rank, 3))
    return [parameter.grad / 3 for parameter in body.parameters()]


def test_the_mean_over_ranks_is_the_gradient_of_the_whole() -> None:
    body, classifier = small_body(), torch.randn(20, 8).double()
    inputs, labels = padded_rows(6)
    hidden = body(inputs)
    hidden.retain_grad()
    xent.linear_cross_entropy(hidden, classifier, labels).backward()
    expected = [parameter.grad.clone() for parameter in body.parameters()]
    body.zero_grad()
    found = averaged_gradients(body, inputs, hidden.grad, tp_ranks.own_share)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    body.zero_grad()  # without W each is a third of it: the test can fail
    wrong = averaged_gradients(body, inputs, hidden.grad, lambda g, rank, w: g.chunk(w)[rank])
    torch.testing.assert_close([3 * w for w in wrong], expected, rtol=1e-12, atol=1e-15)


def test_the_norm_counts_parts_and_copies_once() -> None:
    body = nn.Linear(3, 5)
    own = nn.Parameter(torch.randn(4, 3))
    for parameter in (*body.parameters(), own):
        parameter.grad = torch.randn_like(parameter)
    everything = torch.cat([p.grad.flatten() for p in (*body.parameters(), own)])
    with tp_ranks.all_ranks() as group:
        plain = tp_ranks.total_norm(body.parameters(), own, group)
        sharded = fully_shard(nn.Linear(3, 5), mesh=init_device_mesh("cpu", (1,)))
        for of_part, of_copy in zip(sharded.parameters(), body.parameters(), strict=True):
            where = of_part.device_mesh, of_part.placements
            of_part.grad = dist.tensor.distribute_tensor(of_copy.grad, *where)
        parts = tp_ranks.total_norm(sharded.parameters(), own, group)
    torch.testing.assert_close(plain, everything.double().norm())
    torch.testing.assert_close(parts, everything.double().norm())


@pytest.mark.parametrize(("classes", "ranks"), [(7, 2), (8, 2), (10, 3), (3, 5)])
def test_every_class_has_one_rank(classes: int, ranks: int) -> None:
    ranges = [tp_ranks.class_range(classes, rank, ranks) for rank in range(ranks)]
    assert [c for first, behind in ranges for c in range(first, behind)] == list(range(classes))
    sizes = [behind - first for first, behind in ranges]
    assert max(sizes) - min(sizes) <= 1


def test_a_step_of_the_loss_is_two_all_reduces_and_one_in_the_backward(monkeypatch) -> None:
    inputs, labels = padded_rows(4)
    sequences = lm_sequences.Sequences(inputs, labels)
    settings = lm_training.Settings(1, 6, 8, 1, 2, 4, 1, 0, "linear")
    said: list[str] = []

    def heard(name: str) -> Callable[..., object]:
        real = getattr(dist, name)
        return lambda *given, **options: (said.append(name), real(*given, **options))[1]

    with tp_ranks.all_ranks() as group:
        training = tp_training.Sharded(sequences, 20, settings, group, "fsdp")
        for name in ("all_reduce", "all_gather", "all_gather_object", "broadcast"):
            monkeypatch.setattr(dist, name, heard(name))
        loss = training.loss(sequences)
        assert said == ["all_gather"] * 2 + ["all_reduce"] * 2  # hidden states and labels, the loss
        loss.backward()
    assert said[4:] == ["all_reduce"]


# The verdict


def test_one_rank_without_torchrun(texts: Path) -> None:
    result = train("--text", texts, "--suffix", ".txt", "--bytes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Ranks: 1, with 258 classes; the body in FSDP." in result.stdout
    assert "The losses differ by" in result.stdout
    assert not dist.is_initialized()


def half_of_the_share(gradient: Tensor, rank: int, ranks: int) -> Tensor:
    """As two ranks have it without the factor."""
    return gradient.chunk(ranks)[rank] * ranks / 2


def norm_of_the_body(body: Iterator[nn.Parameter], own: nn.Parameter, group: object) -> Tensor:
    norm = torch.nn.utils.get_total_norm([p.grad for p in body])
    return norm.full_tensor() if isinstance(norm, dist.tensor.DTensor) else norm


def moved_labels(own: Tensor, group: object) -> Tensor:
    return own.roll(1, 0)


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (tp_ranks, "own_share", half_of_the_share),
        (tp_training, "total_norm", norm_of_the_body),
        (tp_training, "gathered", moved_labels),
    ],
)
@pytest.mark.parametrize("wrap", ["fsdp", "ddp"])
def test_what_is_wrong_is_seen(module, name, wrong, wrap, texts: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, name, wrong)
    result = train("--text", texts, "--suffix", ".txt", "--bytes", "--wrap", wrap)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: These are two curves. The losses differ by ")
    assert result.stderr.count("\n") == 1


def test_what_is_not_a_number_agrees_with_nothing() -> None:
    fine = {"largest_difference": 1e-5, "largest_of_norm": 0.0}
    assert tp_run.agrees(fine)
    for name in fine:
        assert not tp_run.agrees(fine | {name: 1.1e-5})
        assert not tp_run.agrees(fine | {name: float("nan")})


def test_a_loss_that_is_not_finite_is_one_line(texts: Path, monkeypatch) -> None:
    nan = torch.tensor(float("nan"))
    monkeypatch.setattr(xent, "linear_cross_entropy", lambda *given, **options: nan)
    result = train("--text", texts, "--suffix", ".txt", "--bytes")
    assert result.exit_code == 1
    assert result.stderr == "Error: The training loss is not finite in step 1.\n"
    assert not dist.is_initialized()


# Bad input


BAD = [
    (("--steps", "0"), ("--steps", "Try --help.")),
    (("--wrap", "tp"), ("fsdp", "Try --help.")),
    (("--bytes", "--vocabulary", "300"), ("--bytes has no vocabulary",)),
    (("--suffix", ".md"), ("--suffix is for the files of --text DIR",)),
    (("--width", "16", "--heads", "3"), ("--width 16 cannot be shared by --heads 3",)),
    (("--json", "/no/such/folder/run.json"), ("cannot be written",)),
    (("--text", "/no/such/folder"), ("There is no folder /no/such/folder",)),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_bad_input_is_one_line(options, words) -> None:
    result = train(*options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("options", [("--batch-size", 3), ("--steps", 0), ("--help",)])
def test_only_the_first_rank_speaks(options, rank, monkeypatch) -> None:
    started = {"TORCHELASTIC_RUN_ID": "here", "RANK": str(rank), "WORLD_SIZE": "2"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    result = train(*options)
    if rank == 1:
        assert (result.exit_code, result.output) == (0, "")
    else:
        assert result.exit_code == (0 if options == ("--help",) else 2)
        assert result.output


def test_nobody_waits_for_what_the_first_rank_cannot_read() -> None:
    def read() -> None:
        raise ValueError("unreadable")

    with tp_ranks.all_ranks() as group:
        with pytest.raises(ValueError, match="unreadable"):
            tp_ranks.from_first_rank(read, group)
        assert tp_ranks.from_first_rank(lambda: 5, group) == 5  # nothing is left over
