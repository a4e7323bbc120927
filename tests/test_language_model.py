"""The language model: labels shifted once, sums divided rightly, padding inert, bytes counted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import lm_measure
import lm_report
import lm_run
import lm_sequences
import lm_text
import lm_tokens
import lm_training
import lm_validation
import xent
from language_model import main
from lm_model import LanguageModel

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

SENTENCE = "the loss of a tøken is the logarithm of what it was given – no less.\n"


@pytest.fixture(autouse=True)
def _quiet_backend(monkeypatch) -> Iterator[None]:
    """Kernels that are compiled for the first time say so on stderr."""
    monkeypatch.setenv("XENT_BACKEND", "torch")  # of the programs that are started
    monkeypatch.setattr(lm_measure, "SECONDS", 0.0)
    with xent.backend("torch"):
        yield


@pytest.fixture
def no_processes(monkeypatch) -> None:
    """Memory is measured in fresh processes, which take seconds to start."""
    monkeypatch.setattr(lm_measure, "_peak_in_a_process", lambda file, name: 1_000_000)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Ten documents of different lengths, in two folders, and what does not count."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "deeper").mkdir()
    for number in range(10):
        name = f"{'deeper/' if number % 2 else ''}{number}.txt"
        (folder / name).write_bytes((SENTENCE * (number + 1))[: 60 + 80 * number].encode())
    (folder / "empty.txt").touch()
    (folder / "other.md").write_text("no text")
    return folder


def train(*options: object) -> Result:
    small = ("--width", 16, "--layers", 1, "--heads", 2, "--context", 16, "--steps", 3)
    small += ("--batch-size", 2, "--micro-batches", 2, "--threads", 1)
    clean = {"NO_COLOR": None, "FORCE_COLOR": None, "COLUMNS": "100"}
    return CliRunner().invoke(main, [str(o) for o in (*small, *options)], env=clean)


def document(texts: Path, file: Path, *options: object) -> dict:
    result = train("--text", texts, "--suffix", ".txt", "--json", file, *options)
    assert result.exit_code == 0, result.output
    return json.loads(file.read_text())


def small_model(vocabulary: int = 20, context: int = 6) -> LanguageModel:
    torch.manual_seed(5)
    model = LanguageModel(vocabulary, context, width=8, layers=2, heads=2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)  # far from an even guess
    return model


def padded_sequences(lengths: tuple[int, ...] = (6, 2, 5, 1, 6, 3)) -> lm_sequences.Sequences:
    generator = torch.Generator().manual_seed(2)
    documents = [torch.randint(18, (length,), generator=generator) for length in lengths]
    return lm_sequences.sequences_of(documents, context=6, start=18, padding=19)


# What is predicted


def test_labels_are_inputs_moved_by_one() -> None:
    inputs, labels = lm_sequences.shifted(torch.tensor([5, 6, 7, 8, 9]), 3, start=1, padding=0)
    assert inputs.tolist() == [[1, 5, 6], [7, 8, 0]]
    assert labels.tolist() == [[5, 6, 7], [8, 9, -100]]


@pytest.mark.parametrize("length", [1, 3, 4, 6, 7])
def test_every_token_is_predicted_once_from_the_one_before(length: int) -> None:
    tokens = torch.arange(10, 10 + length)
    inputs, labels = lm_sequences.shifted(tokens, 3, start=1, padding=0)
    counts = labels != lm_sequences.IGNORED
    assert labels[counts].tolist() == tokens.tolist()
    assert inputs[counts].tolist() == [1, *tokens[:-1].tolist()]
    assert (inputs[~counts] == 0).all()


def test_sequences_are_drawn_once_before_any_comes_again() -> None:
    rows = torch.arange(7).view(7, 1)
    steps = islice(lm_sequences.drawn(lm_sequences.Sequences(rows, rows), 3, seed=1), 7)
    seen = torch.cat([step.inputs.flatten() for step in steps]).view(3, 7)
    assert seen.sort(1).values.tolist() == [list(range(7))] * 3
    assert len({tuple(order) for order in seen.tolist()}) == 3


def test_held_out_files_are_whole_and_the_seed_chooses_them(texts: Path) -> None:
    corpora = [lm_text.read_corpus(texts, ".txt", seed) for seed in range(6)]
    everything = sorted(path.read_bytes().decode() for path in texts.rglob("[0-9].txt"))
    for corpus in corpora:
        assert sorted(corpus.train + corpus.held_out) == everything
        assert len(corpus.held_out) == 1
    assert len({corpus.held_out for corpus in corpora}) > 1
    assert lm_text.read_corpus(texts, ".txt", 3) == corpora[3]


def test_the_standard_library_is_prose() -> None:
    names = {
        "ast.py": True, "json/decoder.py": True, "test/test_ast.py": False,
        "site-packages/torch/nn.py": False, "idlelib/idle_test/a.py": False,
        "encodings/cp1252.py": False, "_sysconfigdata__linux.py": False,
    }  # fmt: skip
    assert {name: lm_text._is_prose(Path(name)) for name in names} == names


# Tokens


@pytest.mark.parametrize("merged", [False, True])
def test_tokens_know_their_bytes(merged: bool) -> None:
    documents = [SENTENCE, "\tif x:\r\n\n  — 日本 🎉\x00<|start|>", "ø"]
    if merged:
        vocabulary = lm_tokens.merged_vocabulary([SENTENCE * 3], 300)
        assert vocabulary.byte_counts.max() > 1
    else:
        vocabulary = lm_tokens.byte_vocabulary()
    for text, ids in zip(documents, vocabulary.encoded(documents), strict=True):
        assert vocabulary.byte_counts[ids].sum() == len(text.encode())
        assert ids.max() < min(vocabulary.start, vocabulary.padding)
    assert vocabulary.byte_counts[[vocabulary.start, vocabulary.padding]].tolist() == [0, 0]


def test_merges_are_the_same_every_time() -> None:
    one, two = (lm_tokens.merged_vocabulary([SENTENCE * 3], 320) for _ in range(2))
    assert one.tokenizer.to_str() == two.tokenizer.to_str()
    assert one.size == two.size <= 320


# The loss of a step


def gradients(model: LanguageModel) -> list[torch.Tensor]:
    taken = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return taken


@pytest.mark.parametrize("loss", lm_training.LOSSES)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_have_the_gradient_of_the_one_batch(loss: str, size: int) -> None:
    model, sequences = small_model(), padded_sequences()
    logits = model(sequences.inputs) @ model.embedding.T
    one = torch.nn.functional.cross_entropy(logits.flatten(0, 1), sequences.labels.flatten())
    one.backward()
    expected = gradients(model)
    total = lm_training.accumulate(model, lm_training.LOSSES[loss], sequences.split(size))
    found = gradients(model)
    assert total == pytest.approx(one.item(), rel=1e-13)
    assert len(found) == len(expected) == len(list(model.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    for batch in sequences.split(size):  # the mean of means is not it: the test can fail
        share = xent.linear_cross_entropy(model(batch.inputs), model.embedding, batch.labels)
        (share / len(sequences.split(size))).backward()
    wrong = gradients(model)
    assert max((w - e).abs().max() for w, e in zip(wrong, expected, strict=True)) > 1e-3


def test_padding_is_inert() -> None:
    model, sequences = small_model(), padded_sequences()
    loss = lm_training.linear_loss
    total = lm_training.accumulate(model, loss, sequences.split(3))
    expected = gradients(model)
    noisy = torch.where(sequences.labels == lm_sequences.IGNORED, 7, sequences.inputs)
    assert not torch.equal(noisy, sequences.inputs)
    other = lm_sequences.Sequences(noisy, sequences.labels)
    assert lm_training.accumulate(model, loss, other.split(3)) == total
    torch.testing.assert_close(gradients(model), expected, rtol=0, atol=1e-15)


def test_the_model_looks_back_only() -> None:
    model, inputs = small_model(), torch.randint(20, (2, 6))
    changed = inputs.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 20
    difference = (model(inputs) - model(changed)).abs().amax((0, 2))
    assert difference[:4].tolist() == [0.0] * 4
    assert (difference[4:] > 1e-3).all()


def test_the_classifier_is_the_embedding() -> None:
    model = LanguageModel(30, 5, width=8, layers=1, heads=2)
    assert [tuple(p.shape) for p in model.parameters()].count((30, 8)) == 1


def test_the_rate_rises_and_falls() -> None:
    rates = [lm_training.rate(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(lm_training.LAST_SHARE)
    assert 0 < lm_training.rate(0, 1) <= 1


# Validation


def test_validation_by_hand() -> None:
    model, sequences = small_model(), padded_sequences()
    counts = torch.tensor([*range(1, 19), 0, 0])
    found = lm_validation.validate(model, sequences, counts, batch_size=4)
    nll, size, right, entropy = 0.0, 0, 0, 0.0
    log_p = (model(sequences.inputs) @ model.embedding.T).log_softmax(-1)
    for row, labels in zip(log_p, sequences.labels.tolist(), strict=True):
        for scores, label in zip(row, labels, strict=True):
            if label != -100:
                nll -= scores[label].item()
                size += label + 1
                right += int(scores.argmax()) == label
                entropy -= (scores.exp() * scores).sum().item()
    assert (found.tokens, found.bytes) == (23, size)
    assert found.loss == pytest.approx(nll / 23)
    assert found.perplexity == pytest.approx(math.exp(nll / 23))
    assert found.bits_per_byte == pytest.approx(nll / 0.6931471805599453 / size)
    assert found.accuracy == pytest.approx(right / 23)
    assert found.entropy == pytest.approx(entropy / 23)


# What is measured


@pytest.mark.usefixtures("no_processes")
def test_both_losses_are_right_and_a_wrong_one_is_not_timed(monkeypatch) -> None:
    model, sequences = small_model().float(), padded_sequences()
    hidden = lm_measure.hidden_of(model, sequences.split(2))
    monkeypatch.setattr(lm_measure, "PIECE", 5)
    for row in lm_measure.measure(hidden):
        assert max(row.loss_error, row.states_error, row.classifier_error) < 1e-5
        assert row.milliseconds > 0
    mean = xent.linear_cross_entropy
    monkeypatch.setitem(lm_measure.LOSSES, "linear", lambda h, w, y, n: mean(h, w, y.roll(1)))
    with pytest.raises(FloatingPointError, match="linear loss or gradient is off by"):
        lm_measure.measure(hidden)


def test_memory_that_could_not_be_measured_is_a_dash() -> None:
    rows = [lm_measure.Measured(n, 2.0, (2.0,), None, 0, 0, 0) for n in lm_training.LOSSES]
    assert "100% of the usual time" in lm_report.gain(rows)
    assert "memory" not in lm_report.gain(rows)


# The run


@pytest.mark.usefixtures("no_processes")
def test_it_learns_bytes_and_writes_what_it_printed(texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    options = ("--text", texts, "--suffix", ".txt", "--json", file, "--bytes", "--steps", 25)
    result = train(*options)
    assert (result.exit_code, result.stderr) == (0, "")
    run = json.loads(file.read_text())
    before, after = run["validation"]["before"], run["validation"]["after"]
    assert before["loss"] == pytest.approx(math.log(258), abs=0.05)
    assert after["loss"] < before["loss"] - 0.5
    held_out = lm_text.read_corpus(texts, ".txt", 0).held_out
    assert after["bytes"] == after["tokens"] == sum(len(text.encode()) for text in held_out)
    assert after["bits_per_byte"] == pytest.approx(after["loss"] / math.log(2))
    assert (run["vocabulary"], run["tokenizers"]) == (258, None)
    assert len(run["steps"]) == 25
    assert run["comparison"]["steps"] == len(run["comparison"]["losses"]) == 5
    assert run["comparison"]["largest_difference"] < 1e-5
    assert {row["name"] for row in run["losses"]} == {"linear", "two-step"}
    shown = [line for line in result.stdout.split("\n") if line]
    assert shown[-1].startswith("xent.linear_cross_entropy: ")
    # The page is narrower, and shows the same.
    assert "".join(lm_report.page_text(run).split()) == "".join(result.stdout.split())


@pytest.mark.usefixtures("no_processes")
def test_it_learns_merged_tokens_the_same_every_time(texts: Path, tmp_path: Path) -> None:
    runs = [
        document(texts, tmp_path / "run.json", "--vocabulary", 290, "--loss", loss)
        for loss in ("linear", "linear", "two-step")
    ]
    curves = [[step["loss"] for step in run["steps"]] for run in runs]
    assert curves[0] == curves[1]
    assert curves[0] == pytest.approx(curves[2], abs=1e-5)
    assert [run["comparison"]["loss"] for run in runs] == ["two-step", "two-step", "linear"]
    assert 258 < runs[0]["vocabulary"] <= 290
    assert runs[0]["validation"]["after"]["tokens"] < runs[0]["validation"]["after"]["bytes"]


@pytest.mark.usefixtures("no_processes")
def test_without_tokenizers_it_takes_bytes_and_says_so(texts: Path, monkeypatch) -> None:
    monkeypatch.setattr(lm_run, "has_tokenizers", lambda: False)
    result = train("--text", texts, "--suffix", ".txt", "--compare-steps", 0)
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: tokens are bytes")
    assert "pip install 'xent[examples]'" in result.stderr
    assert "of 258 kinds" in result.stdout
    assert "either loss" not in result.stdout


@pytest.mark.usefixtures("no_processes")
def test_files_in_another_encoding_are_left_out(texts: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(SENTENCE)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    result = train("--text", tmp_path, "--suffix", ".txt", "--bytes", "--steps", 1)
    assert result.exit_code == 0
    assert result.stderr == "Warning: files that are not UTF-8 were left out: 1.\n"


# Bad input


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_texts_that_cannot_be_used(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    refused(train("--text", nowhere), f"There is no folder {nowhere}")
    (tmp_path / "one.py").write_text("x = 1")
    (tmp_path / "two.py").write_bytes(b"\xff")
    refused(train("--text", tmp_path), "1 documents *.py", "1 are not UTF-8", "two or more")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--steps", "0"), ("--steps", "Try --help.")),
        (("--loss", "mse"), ("two-step", "Try --help.")),
        (("--vocabulary", "257"), ("--vocabulary", "258")),
        (("--verbose",), ("--verbose", "Try --help.")),
        (("--bytes", "--vocabulary", "300"), ("--bytes has no vocabulary",)),
        (("--suffix", ".md"), ("--suffix is for the files of --text DIR",)),
        (("--width", "16", "--heads", "3"), ("--width 16 cannot be shared by --heads 3",)),
        (("--json", "/no/such/folder/run.json"), ("cannot be written",)),
    ],
)
def test_options_that_do_not_fit(options, words) -> None:
    refused(train(*options), *words)


def test_help_shows_how() -> None:
    shown = CliRunner().invoke(main, ["--help"]).stdout
    assert "python examples/language_model.py --bytes --width 128 --layers 2" in shown


def test_a_loss_that_is_not_finite_is_one_line(texts: Path, monkeypatch) -> None:
    monkeypatch.setitem(
        lm_training.LOSSES, "linear", lambda h, w, y, n: (h * w.sum()).sum() * float("nan")
    )
    result = train("--text", texts, "--suffix", ".txt", "--bytes")
    assert result.exit_code == 1
    assert result.stderr == "Error: The training loss is not finite in step 1.\n"


def test_as_a_script_with_memory_measured_in_processes(texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    options = ["--text", texts, "--suffix", ".txt", "--bytes", "--width", "8", "--heads", "1"]
    options += ["--layers", "1", "--context", "8", "--steps", "1", "--threads", "1", "--json", file]
    script = [sys.executable, EXAMPLES / "language_model.py", *options]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "step 1/1" in done.stdout
    assert all(row["bytes"] >= 0 for row in json.loads(file.read_text())["losses"])
