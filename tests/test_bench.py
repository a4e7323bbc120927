"""The benchmark: cases and floors are what they say, a wrong peer is refused, results are whole."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from rich.console import Console

import xent
from xent.benchmark import cases, files, load, measurement, memory, timing
from xent.benchmark.cases import Case, Labels, Mode
from xent.benchmark.cells import compact_cells, memory_cells, notes, speed_cells
from xent.benchmark.data import IGNORE_INDEX, made
from xent.benchmark.drawing import draw
from xent.benchmark.floors import floor_of
from xent.benchmark.measurement import Plan, WrongLossError, measured
from xent.benchmark.peers.contender import UnavailableError
from xent.benchmark.peers.registry import PEERS
from xent.benchmark.peers.torch import TorchLoss
from xent.benchmark.plots import plots
from xent.benchmark.trace import Report, Status
from xent.benchmark.truth import Answer, errors, truth_of
from xent.cli.main import main

SMALL = Case((16, 12))
ROWS = Case((8, 200_000))
PIXELS = Case((2, 5, 6, 7))
FAST = ("xent", "torch")


def bench(*options: str) -> Result:
    clean = {"NO_COLOR": None, "FORCE_COLOR": None, "COLUMNS": "80"}
    return CliRunner().invoke(main, ["bench", "--threads", "1", *options], env=clean)


def planned(*given: Case, peers: tuple[str, ...] = FAST) -> Plan:
    return Plan(given, peers, row_seconds=0.0, memory=lambda _: False)


def report_of(*given: Case, peers: tuple[str, ...] = FAST) -> Report:
    return measured(planned(*given, peers=peers), "xent bench", lambda _: None)


@pytest.fixture(scope="module")
def report() -> Report:
    """Measured, with memory put in by hand."""
    plain = report_of(SMALL, ROWS)
    rows = []
    for row in plain.rows:
        with_memory = row.mode is Mode.BOTH and row.case.is_large
        peak = 1.25 if with_memory else None
        rows.append(replace(row, results=tuple(replace(r, peak_memory=peak) for r in row.results)))
    return replace(plain, rows=tuple(rows))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch):
    """Puts a loss in a peer's place."""

    def plant(name: str, loss) -> None:
        monkeypatch.setitem(PEERS, name, lambda data, mode: TorchLoss(loss, data, mode))

    return plant


def test_every_shape_is_measured_by_default_and_the_product_on_request() -> None:
    assert {case.name for case in cases.default()} == {case.name for case in cases.SHAPES}
    assert len(set(cases.everything())) == len(cases.SHAPES) * len(Labels)
    assert set(cases.default()) < set(cases.everything())
    for case in (cases.LANGUAGE, cases.SEGMENTATION):
        assert {c.labels for c in cases.default() if c.shape == case.shape} == set(Labels)


def test_cases_are_chosen_by_shape() -> None:
    assert cases.chosen(cases.default(), ["32x10"]) == (Case((32, 10)),)
    assert cases.chosen(cases.QUICK, []) == cases.QUICK
    with pytest.raises(ValueError, match=r"no case '7x7'; there are 1024x8192, "):
        cases.chosen(cases.QUICK, ["7x7"])


@pytest.mark.parametrize("labels", Labels)
@pytest.mark.parametrize("shape", [SMALL.shape, PIXELS.shape])
def test_data_are_what_the_case_says_and_come_again(shape, labels) -> None:
    data, again = made(Case(shape, labels)), made(Case(shape, labels))
    assert torch.equal(data.logits, again.logits)
    assert torch.equal(data.target, again.target)
    if labels is Labels.PROBABILITIES:
        torch.testing.assert_close(data.target.sum(1), torch.ones(shape[0], *shape[2:]))
    else:
        assert data.target.shape == (shape[0], *shape[2:])
    assert (data.target == IGNORE_INDEX).any() == (labels is Labels.IGNORED)
    assert (data.weight is not None) == (data.label_smoothing > 0) == (labels is Labels.SMOOTHED)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("labels", "mode", "reads", "writes"),
    [
        (Labels.INDEX, Mode.FORWARD, 1, 0),
        (Labels.INDEX, Mode.BOTH, 2, 1),
        (Labels.IGNORED, Mode.BOTH, 2, 1),
        (Labels.PROBABILITIES, Mode.FORWARD, 2, 0),
        (Labels.PROBABILITIES, Mode.BOTH, 4, 1),
    ],
)
def test_the_floor_reads_and_writes_as_often_as_it_must(labels, mode, reads, writes, dtype) -> None:
    data = made(Case((16, 200_000), labels, dtype))
    floor = floor_of(data, mode)
    # a copy reads once, too
    assert len(floor.reads) + (floor.copy is not None) == reads
    assert (floor.copy is not None) == bool(writes)
    for tensor in (*floor.reads, *(floor.copy or ())):
        assert tensor.nbytes == data.case.bytes
        assert tensor.dtype == torch.float32
    if floor.copy is not None:
        source, mapped = floor.copy
        assert source.data_ptr() == data.logits.data_ptr() != mapped.data_ptr()
    floor.run()


def test_small_logits_have_no_floor() -> None:
    assert floor_of(made(SMALL), Mode.BOTH) is None


@pytest.mark.parametrize("labels", Labels)
@pytest.mark.parametrize("case", [SMALL, PIXELS, Case((16, 12), dtype="bfloat16")])
def test_the_truth_is_torchs_loss_in_float64(case, labels, monkeypatch) -> None:
    monkeypatch.setattr("xent.benchmark.data.BLOCK", 100)  # several blocks
    data = made(replace(case, labels=labels))
    truth = truth_of(data)
    options = {
        name: value.double() if isinstance(value, torch.Tensor) else value
        for name, value in data.options.items()
    }
    target = data.target.double() if data.target.is_floating_point() else data.target
    leaf = data.logits.double().requires_grad_()
    loss = F.cross_entropy(leaf, target, **options)
    loss.backward()
    assert truth.loss == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(truth.gradient, leaf.grad[truth.rows], rtol=1e-10, atol=1e-15)


def test_what_is_not_a_number_is_wrong() -> None:
    truth = truth_of(made(SMALL))
    right = Answer(truth.loss, truth.gradient.clone())
    assert errors(right, truth).verdict("float32") is None
    assert "loss" in errors(replace(right, loss=float("nan")), truth).verdict("float32")
    right.gradient[3, 4] = float("nan")
    assert "gradient" in errors(right, truth).verdict("float32")


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.001 * grad


WRONG = {
    "loss": lambda *args, **options: 1.001 * F.cross_entropy(*args, **options),
    "gradient": lambda *args, **options: WrongGradient.apply(F.cross_entropy(*args, **options)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_peer_is_named_and_not_timed(planted, what) -> None:
    planted("torch", WRONG[what])
    row = report_of(SMALL).rows[-1]
    wrong, right = row.result("torch"), row.result("xent")
    assert wrong.status is Status.WRONG
    assert wrong.reason.startswith(what)
    assert wrong.ms is row.over_ours("torch") is None
    assert right.status is Status.TIMED
    assert right.ms > 0


@pytest.mark.parametrize("what", WRONG)
def test_nothing_is_measured_if_xent_is_wrong(planted, what) -> None:
    planted("xent", WRONG[what])
    with pytest.raises(WrongLossError, match=what):
        report_of(SMALL)


def test_the_command_fails_if_xent_is_wrong(planted, tmp_path) -> None:
    planted("xent", WRONG["loss"])
    result = bench("--quick", "--case", "32x10", "-o", str(tmp_path / "speed.json"))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "32×10, index, forward: xent's loss is off by 1.0e-03" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("labels", Labels)
@pytest.mark.parametrize("shape", [SMALL.shape, PIXELS.shape])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jax_gets_the_same_data(shape, labels, dtype) -> None:
    data = made(Case(shape, labels, dtype))
    truth = truth_of(data)
    for mode in Mode:
        peer = PEERS["jax"](data, mode)
        peer.run()
        assert errors(peer.answer(truth.rows), truth).verdict(dtype) is None


def test_a_peer_that_is_not_installed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    report = report_of(SMALL, peers=("xent", "jax"))
    assert report.rows[0].result("jax").status is Status.UNAVAILABLE
    (note,) = notes(replace(report, other_cores=0.0))
    assert note == (
        "jax is unavailable in every row: needs jax and optax: pip install 'xent[bench]'"
    )


def test_a_compiler_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_arguments, **_options):
        raise RuntimeError("no working C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", lambda *_arguments, **_options: refuses)
    with pytest.raises(UnavailableError, match=r"^RuntimeError: no working C\+\+ compiler$"):
        PEERS["compile"](made(SMALL), Mode.BOTH)


def test_a_report_says_that_the_machine_was_busy(report: Report) -> None:
    assert notes(replace(report, other_cores=None)) == ()
    (note,) = notes(replace(report, other_cores=0.94))
    assert note == "Other programs took 0.9 cores meanwhile: measure again."


@pytest.mark.skipif(not load.STATISTICS.exists(), reason="the system does not say")
def test_other_programs_are_counted_and_this_one_is_not(monkeypatch, tmp_path) -> None:
    statistics = tmp_path / "stat"
    monkeypatch.setattr(load, "STATISTICS", statistics)
    monkeypatch.setattr(load.time, "monotonic", iter([10.0, 12.0]).__next__)
    monkeypatch.setattr(load.os, "times", iter([[1, 0, 0, 0], [2, 0, 0, 0]]).__next__)
    tick = os.sysconf("SC_CLK_TCK")
    statistics.write_text(f"cpu {100 * tick} 0 0 7 7 0 0 0 0 0\n")
    watch = load.Load()
    statistics.write_text(f"cpu {104 * tick} 0 0 9 9 0 0 0 0 0\n")
    assert watch.other_cores() == (4 - 1) / 2


class Sleeper:
    def __init__(self, seconds: float) -> None:
        self.seconds, self.runs, self.kept = seconds, 0, False

    def run(self) -> None:
        time.sleep(self.seconds)
        self.runs, self.kept = self.runs + 1, True

    def release(self) -> None:
        self.kept = False


def test_programs_are_timed_in_turn_and_short_ones_several_times() -> None:
    slow, fast = Sleeper(4e-3), Sleeper(1e-4)
    samples = timing.interleaved({"slow": slow, "fast": fast}, budget=0.0)
    assert len(samples["slow"]) == len(samples["fast"]) == timing.LEAST_ROUNDS
    assert slow.runs == timing.LEAST_ROUNDS + 1
    assert fast.runs > 5 * timing.LEAST_ROUNDS
    assert min(samples["slow"]) >= 4
    assert 0.1 <= min(samples["fast"]) < 4
    assert not slow.kept
    assert not fast.kept


def test_the_document_is_whole_and_comes_back(report: Report) -> None:
    document = json.loads(json.dumps(report.document(), allow_nan=False))
    assert list(document) == ["command", "machine", "other_cores", "rows"]
    assert Report.read(document) == report
    machine = document["machine"]
    assert machine["torch"] == torch.__version__
    assert machine["xent"] == xent.__version__
    assert machine["cores"] >= machine["torch_threads"] >= 1
    small, large = document["rows"][1], document["rows"][3]
    assert small["floor_ms"] is None
    assert (large["shape"], large["labels"], large["mode"]) == (
        [8, 200_000],
        "index",
        "forward+backward",
    )
    ours, torchs = large["results"]
    assert ours["over_floor"] == pytest.approx(ours["ms"] / large["floor_ms"])
    assert torchs["over_xent"] == pytest.approx(torchs["ms"] / ours["ms"])
    assert ours["gradient_error"] < 1e-4


def test_tables_fit_and_say_what_was_measured(report: Report) -> None:
    out = io.StringIO()
    draw(report, Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for word in ("16×12", "8×200000", "+ backward", "/floor", torch.__version__):
        assert word in text
    assert len(speed_cells(report).lines) == 4
    assert [line[0] for line in compact_cells(report).lines] == [
        "8×200000 forward",
        "8×200000 forward + backward",
    ]
    assert memory_cells(report).lines == (("8×200000", "index", "1.25", "1.25"),)
    for cells in (speed_cells(report), compact_cells(report), memory_cells(report)):
        assert {len(line) for line in cells.lines} == {len(cells.header)}


def test_the_widest_labels_fit_a_terminal(report: Report) -> None:
    wide = tuple(replace(report.rows[3], case=case) for case in cases.everything())
    rows = tuple(
        replace(row, results=tuple(replace(row.results[1], peer=peer) for peer in PEERS))
        for row in wide
    )
    out = io.StringIO()
    draw(replace(report, rows=rows), Console(file=out, width=80))
    assert "…" not in out.getvalue()
    assert "probabilities" in out.getvalue()


def test_plots_are_svg_with_every_row(report: Report) -> None:
    pictures = plots(report)
    assert set(pictures) == {"speed", "memory"}
    for picture in pictures.values():
        assert ElementTree.fromstring(picture).tag.endswith("svg")
        assert "8×200000" in picture
        assert "16×12" not in picture  # it has no floor
    assert plots(report) == pictures
    assert plots(replace(report, rows=report.rows[:2])) == {}


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not tell the peak")
def test_the_peak_of_a_call_is_what_it_touched() -> None:
    size = 64 << 20
    assert memory.peak_bytes(lambda: torch.ones(size, dtype=torch.uint8)) == pytest.approx(
        size, rel=0.05
    )
    assert memory.peak_bytes(lambda: None) < 1 << 20


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    case = Case((64, 100_000))
    assert 0.9 < memory.peak_of(case, "torch") < 4
    assert memory.peak_of(case, "nobody") is None


def test_one_process_a_peer_and_only_for_those_that_are_right(monkeypatch, planted) -> None:
    asked = []
    monkeypatch.setattr(measurement, "peak_of", lambda case, peer: asked.append(peer) or 2.0)
    planted("torch", WRONG["gradient"])
    plan = replace(planned(SMALL), memory=lambda _: True)
    forward, both = measured(plan, "xent bench", lambda _: None).rows
    assert asked == ["xent"]
    assert both.peak_memory("xent") == 2.0
    assert both.peak_memory("torch") is forward.peak_memory("xent") is None


def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    path, folder = tmp_path / "speed.json", tmp_path / "a" / "plots"
    options = ("--quick", "--case", "32x10", "--peer", "torch", "--json")
    result = bench(*options, "-o", str(path), "--plots", str(folder))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(path.read_text())
    report = Report.read(json.loads(result.stdout))
    assert report.peers == ("xent", "torch")
    assert [row.mode for row in report.rows] == list(Mode)
    assert report.command.startswith("xent bench --quick --case 32x10 --peer torch --threads 1")
    assert list(folder.iterdir()) == []  # nothing in it that memory would limit
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "speed.json"]


def test_the_command_draws_by_default() -> None:
    result = bench("--quick", "--case", "32x10", "--peer", "torch")
    assert result.exit_code == 0, result.output
    assert "32×10" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--case", "7x7"], "no case '7x7'; there are 4096x32000"),
        (["--quick", "--case", "4096x32000"], "there are 1024x8192"),
        (["--quick", "--all"], "--quick and --all exclude each other"),
        (["--peer", "tensorflow"], "tensorflow"),
        (["--threads", "0"], "--threads"),
        (["-o", "nowhere/speed.json"], "cannot write to nowhere"),
        (["-o", "."], "is a directory"),
        (["--plots", __file__], "is a file"),
        (["surplus"], "surplus"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(options, said) -> None:
    result = bench(*options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert result.stderr.endswith(" Try 'xent bench --help'.\n")


def test_plots_without_matplotlib_fail_at_once(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = bench("--plots", str(tmp_path / "plots"))
    assert result.exit_code == 2
    assert result.stderr == "Error: --plots needs matplotlib: pip install 'xent[bench]'\n"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores can't be told apart here")
def test_the_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0), torch.get_num_threads()
    assert bench("--quick", "--case", "32x10", "--peer", "xent").exit_code == 0
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_an_interrupted_file_is_the_old_one(monkeypatch, tmp_path) -> None:
    path = tmp_path / "speed.json"
    files.write(path, "old")

    class Interrupted(io.StringIO):
        def write(self, text):
            raise KeyboardInterrupt

    def opened(descriptor, *_arguments, **_options):
        os.close(descriptor)
        return Interrupted()

    monkeypatch.setattr(files.os, "fdopen", opened)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_importing_xent_or_its_command_does_not_import_the_room() -> None:
    code = "import sys, xent, xent.cli.main; print([m for m in sys.modules if 'benchmark.' in m])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "xent.benchmark" not in seen.stdout


def test_the_room_itself_needs_only_the_core() -> None:
    code = (
        "import sys\n"
        "for name in ('jax', 'jaxlib', 'optax', 'matplotlib'): sys.modules[name] = None\n"
        "import xent.benchmark.measurement, xent.benchmark.drawing, xent.benchmark.plots"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
