"""The benchmark for GPUs, gone through without one: it ends well whatever a contender does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import gpu
import gpu_suite
import gpu_supervisor
import gpu_worker
import tables
from gpu_cases import LINEAR, LOGITS, OURS, Cell, Kind, cells, made_linear
from gpu_machine import device_facts, slug
from gpu_peers import PEERS, Peer, two_steps
from gpu_plot import plot
from gpu_report import linear_cells, logits_cells, memory_cells, notes, suite_line
from gpu_supervisor import Supervisor
from gpu_targets import target_cells
from gpu_timing import DeviceLostError, EventClock, WallClock, interleaved
from gpu_truth import linear_truth
from gpu_worker import Bench, Task
from xent.benchmark.cases import Mode

ROOT = Path(__file__).parent.parent
ROWS = Cell(Kind.LOGITS, (16, 40), "float32", Mode.BOTH)
HIDDEN = Cell(Kind.LINEAR, (16, 8, 40), "bfloat16", Mode.BOTH)
DRY = ("--device", "cpu", "--tiny", "--suite-seconds", "0")


def task(**options) -> Task:
    given = {"device": "cpu", "tiny": True, "events": "", "until": time.time() + 100}
    return Task(**{**given, "seconds": 0.0, "contenders": [OURS, "eager"], **options})


def row(cell: Cell, given: Task | None = None, clock: WallClock | None = None) -> dict:
    bench = Bench(cell, "cpu")
    clock = clock or WallClock()
    return gpu_worker.row_of(cell, bench, clock, given or task(), lambda *_, **__: None)


def run(*options: str) -> subprocess.CompletedProcess:
    """In a process, without the time that numba takes to compile."""
    environment = {**os.environ, "XENT_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *DRY, *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch):
    """Puts a loss in the place of torch's."""

    def plant(loss, kind: Kind = Kind.LOGITS, **options) -> None:
        monkeypatch.setitem(PEERS[kind], "eager", Peer(loss, **options))

    return plant


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of everything in small, with a peer that takes its process down."""
    folder = tmp_path_factory.mktemp("gpu")
    package = folder / "peers" / "liger_kernel"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    fatal = "import os\nclass LigerCrossEntropyLoss:\n    def __call__(self, *_): os._exit(7)\n"
    (package / "transformers.py").write_text(fatal)
    before = set((ROOT / "benchmarks" / "results").iterdir())
    options = ("--contenders", "xent,eager,Liger", "--peers", str(folder / "peers"))
    done = run(*options, "--output", str(folder / "gpu.json"))
    assert done.returncode == 0, done.stderr
    assert set((ROOT / "benchmarks" / "results").iterdir()) == before
    assert "bandwidth ≥ 90 %" in done.stdout
    return folder / "gpu.json"


def test_everything_that_was_asked_for_is_measured() -> None:
    measured = {(cell.kind, cell.sizes, cell.dtype, cell.mode) for cell in cells()}
    for mode in Mode:
        for dtype in ("bfloat16", "float32"):
            assert {(Kind.LOGITS, sizes, dtype, mode) for sizes in LOGITS} <= measured
        assert {(Kind.LINEAR, sizes, "bfloat16", mode) for sizes in LINEAR} <= measured
    assert len({cell.key for cell in cells()}) == len(cells()) == len(measured)


def test_a_dry_run_measures_every_cell(dry: Path) -> None:
    result = json.loads(dry.read_text())
    assert [found["key"] for found in result["rows"]] == [cell.key for cell in cells(tiny=True)]
    assert not result["skipped"]
    for found in result["rows"]:
        assert found["copy"]["samples_ms"]
        assert (found["kind"] == "linear") == (found["products_ms"] is not None)
        for name in (OURS, "eager"):
            contender = found["contenders"][name]
            assert contender["status"] == "timed", contender
            assert len(contender["samples_ms"]) >= 5
            assert contender["loss_error"] < 1e-2
            assert (contender["gradient_error"] is None) == (found["mode"] == "forward")
    assert result["device"]["name"] == "cpu"
    assert result["machine"]["torch"] == torch.__version__
    assert {"command", "date", "seconds", "budget_s", "clocks", "suite"} <= set(result)


def test_who_takes_the_process_down_is_named_and_left_out(dry: Path) -> None:
    result = json.loads(dry.read_text())
    first = result["rows"][0]["key"]
    assert result["problems"] == [f"{first}, Liger: its process ended with status 7."]
    for found in result["rows"]:
        given = found["contenders"]["Liger"]
        ended = {"status": "failed", "reason": "its process ended with status 7"}
        assert given == ended or given["status"] == "unavailable"  # no linear loss in that package


def test_a_dry_run_is_drawn(dry: Path) -> None:
    pytest.importorskip(
        "matplotlib", reason="it draws, where it is; machines with a GPU may lack it"
    )
    assert "<svg" in dry.with_suffix(".svg").read_text()
    result = json.loads(dry.read_text())
    assert len(logits_cells(result).lines) == 8
    for render in (tables.gpu_logits, tables.gpu_linear, tables.gpu_targets):
        assert "| xent" in render(result) or "| target" in render(result)
    assert plot({**result, "rows": []}) is None


def test_without_time_the_result_says_what_is_missing(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    run("--budget", "0", "--output", str(output))
    result = json.loads(output.read_text())
    assert result["skipped"] == [cell.key for cell in cells(tiny=True)]
    assert not result["rows"]


def test_time_that_runs_out_leaves_the_rows_before() -> None:
    given = task()
    found = []
    for done in gpu_worker.rows(given, WallClock(), lambda *_, **__: None):
        found.append(done)
        given.until = 0
    assert [done["key"] for done in found] == [cells(tiny=True)[0].key]
    assert row(ROWS, given)["contenders"][OURS]["status"] == "skipped"


def test_without_a_gpu_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "Run", None)
    assert gpu.main([]) == 1


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (lambda x, y: 1.01 * F.cross_entropy(x, y), "loss is off"),
        (lambda x, y: F.cross_entropy(x, y) + 1e-3 * (x - x.detach()).sum(), "gradient is off"),
        (lambda x, y: F.cross_entropy(x, y) * float("nan"), "loss is off"),
    ],
)
def test_a_wrong_loss_is_not_timed(planted, loss, reason: str) -> None:
    planted(lambda: loss)
    found = row(ROWS)["contenders"]
    assert found["eager"]["status"] == "wrong"
    assert reason in found["eager"]["reason"]
    assert "samples_ms" not in found["eager"]
    assert found[OURS]["status"] == "timed"


@pytest.mark.parametrize("leaf", [0, 1])
def test_a_wrong_linear_loss_is_not_timed(planted, leaf: int) -> None:
    def loss(*given):
        return two_steps(*given) + 0.1 * (given[leaf] - given[leaf].detach()).float().sum()

    planted(lambda: loss, Kind.LINEAR)
    found = row(HIDDEN)["contenders"]
    assert found["eager"]["status"] == "wrong"
    assert "gradient" in found["eager"]["reason"]
    assert found[OURS]["status"] == "timed"


def test_a_gradient_with_nan_outside_of_the_sample_is_wrong(planted, monkeypatch) -> None:
    import xent.benchmark.truth as truth

    monkeypatch.setattr(truth, "BLOCK", 1)  # the first and the last row

    class Unwritten(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            gradient = gradient.clone()
            gradient[5] = float("nan")
            return gradient

    planted(lambda: lambda x, y: F.cross_entropy(Unwritten.apply(x), y))
    assert row(ROWS)["contenders"]["eager"]["reason"] == "a gradient has NaN"


def test_who_fails_is_a_line_of_the_report(planted) -> None:
    def absent():
        raise ModuleNotFoundError("No module named 'nobody'")

    planted(absent)
    found = row(ROWS)
    assert found["contenders"]["eager"]["status"] == "unavailable"
    result = {"rows": [found], "skipped": ["logits 1×1"], "problems": ["x"]}
    missing = (
        "logits: eager is unavailable in every row: ModuleNotFoundError: No module named 'nobody'"
    )
    assert notes(result) == (missing, "Not measured: logits 1×1.", "x")

    runs = []

    def out_of_memory(x, y):
        runs.append(1)
        if len(runs) > 3:
            raise torch.OutOfMemoryError("no memory is left\nat all")
        return F.cross_entropy(x, y)

    planted(lambda: out_of_memory)
    found = row(ROWS)["contenders"]
    assert found["eager"]["status"] == "failed"
    assert found["eager"]["reason"] == "OutOfMemoryError: no memory is left"
    assert found[OURS]["samples_ms"]


def test_data_that_do_not_fit_are_a_line_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(cell, device):
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(gpu_worker, "made_logits", made)
    found = list(gpu_worker.rows(task(), WallClock(), lambda *_, **__: None))
    assert len(found) == len(cells(tiny=True))
    assert found[0]["contenders"][OURS]["reason"] == "OutOfMemoryError: too large"
    result = {"rows": found, "skipped": [], "problems": []}
    assert logits_cells(result).lines[0][2] == "–"
    assert plot(result) is None


def test_a_contender_that_overwrites_gets_its_logits_back(planted) -> None:
    def overwriting(x, y):
        loss = F.cross_entropy(x, y)
        with torch.no_grad():
            x.data.fill_(0)
        return loss

    seen = []

    def made():
        return lambda x, y: seen.append(x.detach().clone()) or overwriting(x, y)

    planted(made, overwrites=True)
    forward = Cell(Kind.LOGITS, (16, 40), "float32", Mode.FORWARD)
    assert row(forward)["contenders"]["eager"]["status"] == "timed"
    assert all(torch.equal(logits, seen[0]) for logits in seen)
    assert seen[0].any()


def test_a_device_that_is_lost_names_who_lost_it() -> None:
    class Lost(WallClock):
        def check(self) -> None:
            raise DeviceLostError("gone")

    class Illegal:
        def prepare(self) -> None: ...

        def run(self) -> None:
            raise RuntimeError("an illegal memory access was encountered")

        def release(self) -> None: ...

    with pytest.raises(DeviceLostError, match="illegal memory access") as caught:
        interleaved({"Liger": Illegal()}, Lost(), 0)
    assert caught.value.program == "Liger"


def test_who_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_supervisor, "PATIENCE", 0.3)
    given = task()
    supervisor = Supervisor(given, tmp_path / "log", lambda _: None)
    first, second, *_ = cells(tiny=True)
    events = tmp_path / "events"
    for cell, name in ((first, "quack"), (second, OURS)):
        event = {"event": "started", "cell": cell.key, "contender": name}
        events.write_text(json.dumps(event) + '\n{"event": "sta')  # and half a line
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
            ended = supervisor._follow(process, events)
            gpu_suite.end(process)
        assert ended == "no answer for 0 s"
        supervisor._leave_out(ended)
    assert given.refusal(first, "quack") == given.refusal(second, "quack") == ended
    assert given.refusal(second, OURS) == ended
    assert given.refusal(first, OURS) is None  # ours has another chance in every cell
    assert len(supervisor.problems) == 2


def test_a_worker_that_cannot_start_ends_the_run(tmp_path: Path) -> None:
    supervisor = Supervisor(task(device="nowhere"), tmp_path / "log", lambda _: None)
    supervisor.run()
    assert supervisor.problems == ["The worker did not start: its process ended with status 1."]
    assert supervisor.skipped


def test_the_truth_of_the_linear_loss_is_that_of_float64() -> None:
    cell = Cell(Kind.LINEAR, (300, 8, 500), "float32", Mode.BOTH)
    data = made_linear(cell, "cpu")
    truth = linear_truth(data)
    hidden, classifier = (t.double().requires_grad_() for t in (data.hidden, data.classifier))
    loss = two_steps(hidden, classifier, data.target)
    loss.backward()
    assert truth.loss == pytest.approx(loss.item(), rel=1e-12)
    assert 128 < len(truth.classes) <= 256
    torch.testing.assert_close(truth.at_rows, hidden.grad[truth.rows])
    torch.testing.assert_close(truth.at_classes, classifier.grad[truth.classes])


def test_events_time_the_run_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self) -> None:
            done.append("event")

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, other) -> float:
            return 2.0

    class Told:
        def __getattr__(self, name):
            return lambda: done.append(name)

    properties = SimpleNamespace(
        total_memory=1 << 25, name="NVIDIA H200", major=9, minor=0, multi_processor_count=132
    )
    fakes = {
        "Event": Event,
        "get_device_properties": lambda _: properties,
        "synchronize": lambda: None,
        "reset_peak_memory_stats": lambda: None,
        "memory_allocated": lambda: 100,
        "max_memory_allocated": lambda: 350,
        "empty_cache": lambda: done.append("empty"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    clock = EventClock("cpu")
    assert clock.copy.bytes == 2 << 20  # of a small device no more than a part is taken
    monkeypatch.setattr(clock.copy, "flush", lambda: done.append("flush"))
    taken, host = clock.sample(Told())
    assert done == ["prepare", "flush", "event", "run", "event", "wait", "release"]
    assert taken == 2.0
    assert host >= 0
    assert clock.peak(Told()) == 250
    assert row(ROWS, clock=clock)["contenders"][OURS]["peak_bytes"] == 250
    assert device_facts("cuda")["capability"] == "9.0"
    assert slug(properties.name) == "nvidia-h200"


def test_figures_are_what_they_say() -> None:
    def contender(ms: float, peak: int = 0) -> dict:
        return {"status": "timed", "samples_ms": [ms, ms, 9e9], "peak_bytes": peak}

    cell = Cell(Kind.LOGITS, (1000, 5000), "bfloat16", Mode.BOTH)
    logits = {
        **gpu_worker._head(cell),
        "copy": {"bytes": 4_000_000, "samples_ms": [0.001]},
        "contenders": {
            OURS: contender(0.01),
            "compile": contender(0.03),
            "Liger": contender(0.008),
        },
    }
    cell = Cell(Kind.LINEAR, (1000, 100, 5000), "bfloat16", Mode.BOTH)
    linear = {
        **gpu_worker._head(cell),
        "products_ms": [2.0],
        "contenders": {
            OURS: contender(3.0, 3 << 30), "eager": contender(3.0), "CCE": contender(3.0, 2 << 30)
        },
    }  # fmt: skip
    result = {"rows": [logits, linear], "skipped": [], "problems": []}
    unknown = {"bytes": 1, "samples_ms": []}  # the copy failed
    assert logits_cells({**result, "rows": [{**logits, "copy": unknown}]}).lines[0][3] == "–"
    # 3 × 10 MB in 0.01 ms; the copy has 4 TB/s
    assert logits_cells(result).lines[0][2:6] == ("0.010", "75%", "4.00", "3.00")
    assert linear_cells(result).lines[0][2:5] == ("1", "2.00", "3.00")
    assert memory_cells(result, Kind.LINEAR).lines[0][1] == "3.000"
    met = {line[0]: line[2:] for line in target_cells(result).lines}
    assert list(met.values()) == [
        ("0", "1", "75%"), ("0", "1", "0.80"), ("1", "1", "3.00"),
        ("0", "1", "1.50"), ("1", "1", "1.00"), ("0", "1", "1.50"),
    ]  # fmt: skip


def test_the_tests_on_the_device_are_counted(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_suite, "ROOT", tmp_path)
    log = tmp_path / "log"
    assert gpu_suite.suite("cpu", 5, log)["status"] == "there is no tests/test_triton*.py"
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_triton_rows.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('name', ['a b', 'c'])\n"
        "def test_here(name): assert os.environ['XENT_TEST_DEVICE'] == 'cpu'\n"
        "def test_wrong(): assert 1 == 2\n"
    )
    found = gpu_suite.suite("cpu", 60, log)
    assert found["status"] == "exit status 1"
    assert found["counts"] == {"passed": 2, "failed": 1}
    (failure,) = found["failures"]
    assert failure["test"] == "tests/test_triton_rows.py::test_wrong"
    assert "assert 1 == 2" in failure["message"]
    assert "2 passed, 1 failed (exit status 1). Not passed: tests/" in suite_line(found)
    slow = "import time; print('tests/test_triton.py::test_a PASSED', flush=True); time.sleep(60)"
    monkeypatch.setattr(gpu_suite, "command", lambda _: [sys.executable, "-c", slow])
    found = gpu_suite.suite("cpu", 2, log)
    assert found["status"] == "ended for want of time"
    assert found["counts"] == {"passed": 1}


def test_output_of_several_processes_is_read() -> None:
    lines = (
        "tests/test_triton.py::test_a ",
        "[gw0] [ 50%] PASSED tests/test_triton.py::test_a[x - y] ",
        "[gw1] [100%] FAILED tests/test_triton.py::test_b ",
        "FAILED tests/test_triton.py::test_b - AssertionError: off by 1 - or 2",
        "ERROR tests/test_triton_z.py - ImportError: no",
        "= 1 failed, 1 passed in 0.1s =",
    )
    found = gpu_suite.outcomes(lines)
    assert found["counts"] == {"passed": 1, "failed": 1, "error": 1}
    assert found["failures"] == [
        {"test": "tests/test_triton.py::test_b", "message": "AssertionError: off by 1 - or 2"},
        {"test": "tests/test_triton_z.py", "message": "ImportError: no"},
    ]


def test_peers_come_as_a_folder_or_as_wheels(tmp_path: Path) -> None:
    assert gpu.unpacked(tmp_path, tmp_path / "run") == tmp_path
    with zipfile.ZipFile(tmp_path / "peer-1-py3-none-any.whl", "w") as archive:
        archive.writestr("peer/__init__.py", "")
    assert gpu.unpacked(tmp_path, tmp_path / "run") == tmp_path / "run" / "peers"
    assert (tmp_path / "run" / "peers" / "peer" / "__init__.py").exists()


def test_a_result_has_the_devices_name_and_a_dry_run_none(tmp_path: Path) -> None:
    dry = gpu.Run(gpu.arguments(["--tiny"]), tmp_path)
    dry.supervisor.facts = {"name": "NVIDIA H200"}
    assert dry.output is None
    assert dry.picture is None
    assert dry.log.parent == tmp_path
    given = gpu.Run(gpu.arguments(["--output", str(tmp_path / "a.json")]), tmp_path)
    assert given.output == tmp_path / "a.json"
    assert given.picture == tmp_path / "a.svg"
    assert given.log == tmp_path / "a.log"
