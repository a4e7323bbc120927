"""The demonstration: its numbers cohere, its drawing draws them, and it can fail."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner, Result

import xent
from xent.cli import drawing
from xent.cli.main import main
from xent.cli.outcome import PROMISE, Outcome
from xent.cli.training import experiment

ESCAPE = "\x1b"


def demo(*options: str, **environment: str) -> Result:
    clean = {"NO_COLOR": None, "FORCE_COLOR": None, "COLUMNS": "80", **environment}
    return CliRunner().invoke(main, ["demo", "--epochs", "2", *options], env=clean)


@pytest.fixture(scope="module")
def document() -> dict:
    result = demo("--json", "--seed", "3", "--threads", "1")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return experiment(2, 3, lambda: None)


def test_the_curves_agree_as_promised(document: dict) -> None:
    torch_losses, xent_losses = document["torch"]["losses"], document["xent"]["losses"]
    difference = max(abs(a - b) for a, b in zip(torch_losses, xent_losses, strict=True))
    agreement = document["agreement"]
    assert agreement["promise"] == 1e-5
    assert agreement["largest_difference"] == difference <= 1e-5
    assert agreement["agrees"] is True
    assert agreement["steps"] == len(torch_losses)


def test_the_trainings_are_real(document: dict) -> None:
    setup = document["setup"]
    steps = setup["epochs"] * math.ceil(setup["train_images"] / setup["batch_size"])
    assert setup["train_images"] + setup["held_out_images"] == 1797
    for name in ("torch", "xent", "soft"):
        run = document[name]
        assert len(run["losses"]) == steps
        assert len(run["loss_seconds"]) == steps - setup["warm_up_steps"]
        assert all(seconds > 0 for seconds in run["loss_seconds"])
        assert run["loss_total_ms"] == pytest.approx(1e3 * sum(run["loss_seconds"]))
        assert run["losses"][-1] < run["losses"][0] / 2
        assert 0.5 < run["accuracy"] <= 1


def test_soft_labels_cost_at_least_their_entropy(document: dict) -> None:
    setup = document["setup"]
    even = setup["label_smoothing"] / setup["classes"]
    label = [1 - setup["label_smoothing"] + even] + [even] * (setup["classes"] - 1)
    entropy = -sum(q * math.log(q) for q in label)
    assert setup["soft_label_entropy"] == pytest.approx(entropy, rel=1e-6)
    assert min(document["soft"]["losses"]) > entropy


def test_the_gradient_of_the_confused_digit_is_p_minus_y(document: dict) -> None:
    digit = document["confused"]
    p, gradient = digit["probabilities"], digit["gradient"]
    assert sum(p) == pytest.approx(1, abs=1e-6)
    for number, (a, b) in enumerate(zip(p, gradient, strict=True)):
        assert b == pytest.approx(a - (number == digit["label"]), abs=1e-6)
    assert digit["gradient_sum"] == pytest.approx(0, abs=1e-6)
    assert digit["predicted"] == p.index(max(p))
    assert digit["loss"] == pytest.approx(-math.log(p[digit["label"]]), rel=1e-4)


def test_the_confused_digit_is_in_the_data(document: dict) -> None:
    from sklearn.datasets import load_digits

    data, digit = load_digits(), document["confused"]
    assert data.target[digit["image"]] == digit["label"]
    assert (data.images[digit["image"]] / 16).tolist() == digit["pixels"]


def test_a_seed_repeats_and_another_differs(document: dict) -> None:
    again, other = (
        json.loads(demo("--json", "--threads", "1", "--seed", seed).stdout) for seed in "34"
    )
    assert again["torch"]["losses"] == document["torch"]["losses"]
    assert again["confused"] == document["confused"]
    assert other["torch"]["losses"] != document["torch"]["losses"]


def test_the_environment_and_the_callers_threads(document: dict) -> None:
    before = torch.get_num_threads()
    most = os.cpu_count() or 1
    result = json.loads(demo("--json", "--epochs", "1", "--threads", str(most)).stdout)
    assert result["environment"]["threads"] == most
    assert torch.get_num_threads() == before
    assert document["environment"]["torch"] == torch.__version__
    assert document["environment"]["xent"] == xent.__version__


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_drawing_fits_and_shows_what_was_measured(
    outcome: Outcome, columns: int, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    drawing.draw(outcome)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    words = " ".join(shown.split())
    assert f"{outcome.largest_difference:.1e} nats ≤ 1e-05, the promise: kept" in words
    for run in outcome.runs:
        row = rf"{run.criterion} +{run.accuracy:.1%} +{run.total_ms:.1f} +{run.median_us:.0f}\b"
        assert re.search(row, shown)
    assert f"label {outcome.confused.label}, read as {outcome.confused.predicted}" in words
    assert f"{outcome.confused.gradient[outcome.confused.label]:+.4f}" in shown
    for marker in "×○█":
        assert marker in shown


def test_a_broken_promise_is_said(outcome: Outcome, capsys) -> None:
    losses = (outcome.xent.losses[0] + 2 * PROMISE, *outcome.xent.losses[1:])
    drawing.draw(replace(outcome, xent=replace(outcome.xent, losses=losses)))
    assert "the promise: BROKEN" in " ".join(capsys.readouterr().out.split())


def test_a_digit_that_was_read_rightly_has_one_mark(outcome: Outcome, capsys) -> None:
    right = replace(outcome.confused, predicted=outcome.confused.label)
    drawing.draw(replace(outcome, confused=right))
    assert "true, predicted" in capsys.readouterr().out


def test_gradients_that_vanish_are_not_called_positive(outcome: Outcome, capsys) -> None:
    label = outcome.confused.label
    gradient = tuple(-1.0 if number == label else 0.0 for number in range(10))
    drawing.draw(replace(outcome, confused=replace(outcome.confused, gradient=gradient)))
    assert "0 of 9 wrong classes have a positive one" in " ".join(capsys.readouterr().out.split())


def test_one_epoch_has_curves_too() -> None:
    result = CliRunner().invoke(main, ["demo", "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "1 epoch of" in " ".join(result.stdout.split())


def test_colour_only_where_it_is_welcome() -> None:
    assert ESCAPE not in demo().output
    assert ESCAPE in demo(FORCE_COLOR="1").stdout
    assert ESCAPE not in demo(FORCE_COLOR="1", NO_COLOR="1").stdout


def test_a_terminal_without_block_characters_is_no_mistake() -> None:
    result = CliRunner(charset="ascii").invoke(main, ["demo", "--epochs", "1"])
    assert result.exit_code == 0, result.exception
    assert "??" in result.stdout


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("module", "package"), [("sklearn.datasets", "scikit-learn"), ("plotext", "plotext")]
)
def test_a_missing_extra_names_the_command(
    module: str, package: str, options: tuple[str, ...], monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = demo(*options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"Error: xent demo needs {package}: pip install 'xent[demo]'\n"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_wrong_loss_is_caught(options: tuple[str, ...], monkeypatch) -> None:
    right = xent.CrossEntropyLoss.forward
    monkeypatch.setattr(xent.CrossEntropyLoss, "forward", lambda *given: 1.001 * right(*given))
    result = demo(*options)
    assert result.exit_code == 1
    assert result.stderr == ""
    if options:
        assert json.loads(result.stdout)["agreement"]["agrees"] is False
    else:
        assert "BROKEN" in result.stdout


def test_a_wrong_gradient_is_caught(monkeypatch) -> None:
    right = xent.CrossEntropyLoss.forward

    def wrong(self, logits, target):
        loss = right(self, logits, target)
        return loss.detach() + 1.001 * (loss - loss.detach())

    monkeypatch.setattr(xent.CrossEntropyLoss, "forward", wrong)
    assert demo().exit_code == 1


def test_a_training_that_fails_is_one_line(monkeypatch) -> None:
    right = xent.CrossEntropyLoss.forward
    monkeypatch.setattr(xent.CrossEntropyLoss, "forward", lambda *given: math.nan * right(*given))
    result = demo("--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "xent.CrossEntropyLoss is nan at step 1" in result.stderr
