"""``xent explain``: what it prints, and how it answers mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import xent
from xent.cli.examples import EXAMPLES
from xent.cli.main import main

PETS = ("--probs", "0.1,0.7,0.2", "--target", "0")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def explained(*arguments: object) -> dict:
    """The document that it prints."""
    result = run("explain", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def assert_one_line(result: Result, command: str, said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.replace("\n", "").isprintable()
    assert said in result.stderr
    assert result.stderr.endswith(f" Try 'xent {command} --help'.\n")
    assert isinstance(result.exception, SystemExit)


def test_the_gradient_of_the_readme() -> None:
    result = run("explain", *PETS)
    assert result.exit_code == 0
    assert "(−0.9, 0.7, 0.2)" in result.stdout
    assert "2.3026 nats" in result.stdout
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.parametrize("form", ["terminal", "text", "markdown", "html", "json", "python"])
def test_each_format_is_the_explanations_own(form, tmp_path) -> None:
    told = xent.explain(torch.tensor([0.1, 0.7, 0.2], dtype=torch.float64).log(), torch.tensor(0))
    printed = run("explain", *PETS, "--format", form)
    assert printed.exit_code == 0
    written = {
        "text": told.to_text, "markdown": told.to_markdown, "html": told.to_html,
        "json": lambda: told.to_json(indent=2) + "\n", "python": told.to_python,
    }  # fmt: skip
    if form == "terminal":
        assert "(−0.9, 0.7, 0.2)" in printed.stdout
        return
    assert printed.stdout == written[form]()
    path = tmp_path / "told"
    result = run("explain", *PETS, "--format", form, "-o", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert path.read_text(encoding="utf-8") == written[form]()


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [(".html", "<!doctype html>"), (".HTM", "<!doctype"), (".md", "# Cross-entropy"),
     (".json", "{"), (".py", "import torch"), (".txt", "Cross-entropy"), ("", "Cross-entropy")],
)  # fmt: skip
def test_the_suffix_of_a_file_chooses_its_format(suffix, begins, tmp_path) -> None:
    path = tmp_path / f"told{suffix}"
    result = run("explain", *PETS, "-o", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Wrote {path}.\n"
    assert path.read_text(encoding="utf-8").startswith(begins)
    assert "\x1b" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("form", ["terminal", "html"])
def test_every_example_is_explained(example, form) -> None:
    result = run("explain", "--example", example, "--format", form)
    assert (result.exit_code, result.stderr) == (0, "")
    if form == "html":
        HTMLParser().feed(result.stdout)
    assert explained("--example", example)["row"]["loss"] > 0


@pytest.mark.parametrize("row", [0, 1, "-1"])
@pytest.mark.parametrize("suffix", [".npz", ".csv", ".json"])
def test_a_file_is_explained_row_by_row(suffix, row, tmp_path) -> None:
    logits, target = [[1.0, 2.0, 0.5], [0.25, -1.0, 3.0]], [2, 0]
    path = tmp_path / f"batch{suffix}"
    if suffix == ".npz":
        np.savez(path, logits=np.array(logits), target=np.array(target))
    elif suffix == ".json":
        path.write_text(json.dumps({"logits": logits, "target": target}))
    else:
        lines = [",".join(map(str, [*x, y])) for x, y in zip(logits, target, strict=True)]
        path.write_text("\n".join(["a,b,c,target", *lines]) + "\n")
    document = explained("--file", path, "--row", row)
    place = int(row) % 2
    assert document["row"]["position"] == [place]
    assert [c["logit"] for c in document["row"]["classes"]] == logits[place]
    told = xent.explain(logits, target, row=place)
    assert document["row"]["loss"] == pytest.approx(told.row.loss)
    assert document["batch"]["value"] == pytest.approx(told.batch.value)
    assert explained("--file", path, "--row", "all")["row"] is None


def test_a_position_of_several_axes(tmp_path) -> None:
    path = tmp_path / "images.npz"
    np.savez(
        path, logits=np.random.default_rng(0).normal(size=(2, 3, 4)), target=np.ones((2, 4), int)
    )
    assert explained("--file", path, "--row", "1,2")["row"]["position"] == [1, 2]


def test_options_are_those_of_the_loss() -> None:
    row = explained("--logits", "1 2 3", "--target", "dog", "--names", "cat,dog,bird")["row"]
    assert (row["label_index"], row["classes"][1]["name"]) == (1, "dog")
    soft = explained("--logits", "1;2;3", "--target", "0.7,0.2,0.1", "--label-smoothing", 0.1)
    told = xent.explain([1.0, 2, 3], [0.7, 0.2, 0.1], label_smoothing=0.1)
    assert soft == told.to_dict()
    binary = explained("--logits", "2,-1", "--target", "1,0", "--binary", "--pos-weight", "3,1")
    assert binary == xent.explain_binary([2.0, -1.0], [1.0, 0.0], pos_weight=[3.0, 1.0]).to_dict()
    weighted = explained("--logits", "1,2", "--target", 1, "--weight", "2,3", "--reduction", "sum")
    assert weighted["batch"]["value"] == pytest.approx(3 * np.log1p(np.exp(-1)))
    stepped = explained(*PETS, "--steps", 2, "--step-size", "0.5")["row"]["descent"]
    assert (len(stepped["steps"]), stepped["step_size"]) == (3, 0.5)
    top = explained("--logits", ",".join("123456789"), "--target", 0, "--top", 2)["row"]
    assert top["rest"]["classes"] == 6
    assert explained("--logits", "1,2", "--target", 0, "--top", 10**30)["row"]["rest"] is None


@pytest.mark.parametrize("logits", ["nan,1,2", "-inf,0,1", "inf,0,1", "1e308,-1e308,0", "5"])
@pytest.mark.parametrize("form", ["terminal", "text", "markdown", "html", "json", "python"])
def test_strange_logits_are_explained(logits, form) -> None:
    result = run("explain", "--logits", logits, "--target", "0", "--format", form)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.exception is None


MISTAKES = [
    ((), "--logits"),
    (("--logits", "1,2"), "--target"),
    (("--logits", ""), "--logits"),
    (("--logits", " ", "--target", "0"), "--logits"),
    (("--logits", "1,,2", "--target", "0"), "no value 2"),
    (("--logits", "1,two", "--target", "0"), "two"),
    (("--logits", "1,2", "--probs", "0.5,0.5", "--target", "0"), "--probs"),
    (("--logits", "1,2", "--example", "dense"), "--example"),
    (("--example", "none"), "none"),
    (("--probs", "0.5,0.9", "--target", "0"), "--probs"),
    (("--probs", "1.5,-0.5", "--target", "0"), "--probs"),
    (("--logits", "1,2", "--target", "2"), "0..1"),
    (("--logits", "1,2", "--target", "cat"), "cat"),
    (("--logits", "1,2", "--target", "0.5,0.25,0.25"), "3 values"),
    (("--logits", "1,2", "--target", "9" * 30), "target"),
    (("--logits", "1,2", "--target", "0", "--names", "a,b,c"), "--names"),
    (("--logits", "1,2", "--target", "0", "--names", "a,a"), "--names"),
    (("--logits", "1,2", "--target", "0", "--names", ""), "--names"),
    (("--example", "gradient", "--names", "a"), "names"),
    (("--logits", "1,2", "--target", "0", "--weight", "1,2,3"), "weight"),
    (("--logits", "1,2", "--target", "0", "--weight", "x"), "--weight"),
    (("--logits", "1,2", "--target", "0", "--pos-weight", "1,2"), "--binary"),
    (("--logits", "1,2", "--target", "1", "--binary"), "target"),
    (("--logits", "1,2", "--target", "1,0", "--binary", "--dim", "0"), "--dim"),
    (("--logits", "1,2", "--target", "1,0", "--binary", "--pos-weight", "1,2,3"), "pos_weight"),
    (("--logits", "1,2", "--target", "0", "--dim", "3"), "dim"),
    (("--logits", "1,2", "--target", "0", "--row", "1"), "row"),
    (("--logits", "1,2", "--target", "0", "--row", "-2"), "row"),
    (("--logits", "1,2", "--target", "0", "--row", "first"), "first"),
    (("--logits", "1,2", "--target", "0", "--row", ""), "position"),
    (("--logits", "1,2", "--target", "0", "--row", "0,0"), "row"),
    (("--logits", "1,2", "--target", "0", "--row", "9" * 18), "row"),
    (("--logits", "1,2", "--target", "0", "--label-smoothing", "2"), "label_smoothing"),
    (("--logits", "1,2", "--target", "0", "--label-smoothing", "nan"), "label_smoothing"),
    (("--logits", "1,2", "--target", "0", "--label-smoothing", "x"), "--label-smoothing"),
    (("--logits", "1,2", "--target", "0", "--step-size", "nan"), "step_size"),
    (("--logits", "1,2", "--target", "0", "--step-size", "inf"), "step_size"),
    (("--logits", "1,2", "--target", "0", "--steps", "-1"), "--steps"),
    (("--logits", "1,2", "--target", "0", "--steps", "1001"), "--steps"),
    (("--logits", "1,2", "--target", "0", "--top", "0"), "--top"),
    (("--logits", "1,2", "--target", "0", "--reduction", "average"), "average"),
    (("--logits", "1,2", "--target", "0", "--ignore-index", "x"), "--ignore-index"),
    (("--file", "no/such/file.npz"), "no/such/file.npz"),
    (("--file", "."), "."),
    (("--logits", "1,2\x1b[31m", "--target", "0"), "--logits"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=str)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, said) -> None:
    assert_one_line(run("explain", *arguments), "explain", said)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.npz", b"not a zip"), ("a.json", b"{"), ("a.csv", b""), ("a.npy", b"\x93NUMPY"),
     ("a.json", b'{"logits": [[1, 2], [3]], "target": [0, 1]}'), ("a.exe", b"MZ")],
)  # fmt: skip
def test_a_file_that_is_none_is_one_line(name, content, tmp_path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert_one_line(run("explain", "--file", path), "explain", name)


def test_a_target_beside_a_file_of_many_rows_is_refused(tmp_path) -> None:
    path = tmp_path / "batch.json"
    path.write_text('{"logits": [[1, 2], [3, 4]]}')
    assert_one_line(run("explain", "--file", path, "--target", "0"), "explain", "--target")
    assert_one_line(run("explain", "--file", path), "explain", "--target")


def test_what_cannot_be_written_is_one_line(tmp_path) -> None:
    for output in (tmp_path / "no" / "such" / "folder.html", tmp_path):
        assert_one_line(
            run("explain", *PETS, "-o", output),
            "explain",
            "output" if output == tmp_path else "written",
        )


def test_two_formats_are_refused() -> None:
    assert_one_line(run("explain", *PETS, "--json", "--format", "html"), "explain", "--json")


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "xent", *arguments]
    path = str(Path(xent.__file__).parents[1])
    return subprocess.run(
        command, capture_output=True, check=False, encoding="utf-8",
        env={"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "PATH": "", **environment},
    )  # fmt: skip


def test_a_process_prints_neither_warnings_nor_escapes() -> None:
    done = in_a_process("explain", *PETS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(−0.9, 0.7, 0.2)" in done.stdout
    assert "\x1b" not in done.stdout


def test_an_encoding_without_minus_signs_is_no_traceback() -> None:
    for form in ("terminal", "text"):
        done = in_a_process("explain", *PETS, "--format", form, PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_of_a_process_is_one_line() -> None:
    done = in_a_process("explain", "--logits", "1,2")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
