"""The command line: what it says of itself, and how it answers mistakes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

import xent
from xent.cli.main import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert xent.__version__ in result.stdout


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_shows_examples_that_fit_a_terminal(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert "xent demo --epochs 5 --seed 7" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_examples_name_commands_and_options_that_exist() -> None:
    examples = [line.split() for line in main.epilog.splitlines() if line.startswith("  xent ")]
    assert len(examples) >= 3
    for _, name, *words in examples:
        known = {option for parameter in main.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--unknown"], "--unknown"),
        (["unknown"], "unknown"),
        (["demo", "--epoch", "3"], "--epoch"),
        (["demo", "surplus"], "surplus"),
        (["demo", "--epochs"], "--epochs"),
        (["demo", "--epochs", "0"], "--epochs"),
        (["demo", "--epochs", "three"], "three"),
        (["demo", "--seed", "-1"], "--seed"),
        (["demo", "--threads", "0"], "--threads"),
        (["demo", "--threads", "1000000"], "--threads"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    command = "xent demo" if arguments[0] == "demo" else "xent"
    assert result.stderr.endswith(f" Try '{command} --help'.\n")


def test_what_a_command_needs_is_imported_by_the_command() -> None:
    heavy = ("sklearn", "rich", "plotext")
    code = f"import sys, xent.cli.main; print([m for m in {heavy} if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
