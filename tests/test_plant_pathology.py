"""The plant example: labels really are soft, a resumed run is the same run, bad input is a line."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import plants_checkpoint
import plants_data
import plants_report
import plants_training
import resnet
import xent
from plant_pathology import main
from xent.cli.demo import threads_of_torch

EXAMPLES = Path(__file__).parent.parent / "examples"

ESCAPE = "\x1b"
CLASSES = ("healthy", "rust", "scab")
COLOURS = ((60, 160, 60), (200, 120, 40), (70, 70, 90))
EACH = 8


@pytest.fixture(autouse=True)
def _quiet_backend(monkeypatch) -> Iterator[None]:
    """Kernels that are compiled for the first time say so on stderr."""
    monkeypatch.setenv("XENT_BACKEND", "torch")  # of the programs that are started
    with xent.backend("torch"):
        yield


@pytest.fixture(autouse=True)
def _small_models(monkeypatch) -> None:
    monkeypatch.setattr(resnet, "WIDTH", 4)
    monkeypatch.setitem(resnet.BLOCKS, "resnet18", (1, 1, 1, 1))


@pytest.fixture(scope="module")
def leaves(tmp_path_factory) -> Path:
    """Eight leaves of each class, of a colour of its own, on 24×20 pixels of noise."""
    folder = tmp_path_factory.mktemp("leaves")
    (folder / "images").mkdir()
    generator = torch.Generator().manual_seed(1)
    lines = ["image_id," + ",".join(CLASSES)]
    for number in range(EACH * len(CLASSES)):
        kind = number % len(CLASSES)
        noise = torch.randint(40, (24, 20, 3), generator=generator)
        pixels = (noise + torch.tensor(COLOURS[kind])).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / "images" / f"Train_{number}.jpg")
        lines.append(f"Train_{number}," + ",".join("01"[c == kind] for c in range(len(CLASSES))))
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def own_leaves(leaves: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(leaves, tmp_path / "own"))


def train(data: Path, *options: object, **environment: str) -> Result:
    clean = {"NO_COLOR": None, "FORCE_COLOR": None, "COLUMNS": "100", **environment}
    small = ("--data", data, "--size", 24, "--batch-size", 6, "--threads", 1, "--epochs", 2)
    return CliRunner().invoke(main, [str(o) for o in (*small, *options)], env=clean)


def document(data: Path, *options: object) -> dict:
    result = train(data, "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def without_seconds(run: dict) -> dict:
    epochs = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in run["epochs"]]
    return {**run, "epochs": epochs, "seconds": None}


# The model and what is fed to it


@pytest.mark.parametrize(
    ("model", "published"), [("resnet18", 11_689_512), ("resnet34", 21_797_672)]
)
@pytest.mark.parametrize("classes", [2, 4])
def test_parameters_are_the_papers_but_for_stem_and_head(model, published, classes) -> None:
    blocks = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}[model]
    with torch.device("meta"):
        count = sum(p.numel() for p in resnet.ResNet(blocks, classes, 64).parameters())
    stem, head = 64 * 3 * (7 * 7 - 3 * 3), (512 + 1) * (1000 - classes)
    assert count == published - stem - head


def test_parameters_of_the_default_models(monkeypatch) -> None:
    monkeypatch.undo()
    counts = {}
    for name in resnet.BLOCKS:
        with torch.device("meta"):
            counts[name] = sum(p.numel() for p in resnet.resnet(name, 4).parameters())
    # Half the width: a fourth of the convolutions but the stem's, half of the batch norms, 256 → 4.
    assert counts == {
        "resnet18": 11_157_504 // 4 + 3 * 32 * 9 + 9_600 // 2 + 257 * 4,
        "resnet34": 21_258_240 // 4 + 3 * 32 * 9 + 17_024 // 2 + 257 * 4,
    }


def test_a_model_gives_one_logit_per_class() -> None:
    assert resnet.resnet("resnet34", 5)(torch.randn(2, 3, 24, 40)).shape == (2, 5)


def test_mixup_mixes_labels_as_it_mixes_images() -> None:
    labels = torch.eye(3).repeat(2000, 1)
    images = labels.view(-1, 3, 1, 1).expand(-1, 3, 4, 4)  # each image shows its label
    alpha = 0.4
    mixed_images, mixed_labels = plants_training.mixed(images, labels, alpha)
    torch.testing.assert_close(mixed_images.mean((2, 3)), mixed_labels)
    torch.testing.assert_close(mixed_labels.sum(1), torch.ones(6000))
    own = (mixed_labels * labels).sum(1)
    blended = own[own < 1]
    assert blended.min() < 0.1  # shares come from the whole of [0, 1]
    partners_differ = 2 / 3
    assert own.mean().item() == pytest.approx(1 - partners_differ / 2, abs=0.02)
    assert blended.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.02)


def test_without_mixup_labels_stay_hard() -> None:
    images, labels = torch.randn(4, 3, 8, 8), torch.eye(4)
    unmixed = plants_training.mixed(images, labels, 0.0)
    assert unmixed[0] is images
    assert unmixed[1] is labels


def test_augmentation_turns_and_shifts(monkeypatch) -> None:
    image = torch.arange(3 * 24 * 24.0).view(1, 3, 24, 24)
    turns = [a.rot90(k, (2, 3)) for a in (image, image.flip(3)) for k in range(4)]
    middles = {tuple(turn[0, 0, 12:14, 12].tolist()) for turn in turns}
    shifted = plants_training.augmented(image.expand(400, -1, -1, -1))
    assert shifted.shape == (400, 3, 24, 24)
    assert len({tuple(one[0, 12:14, 12].tolist()) for one in shifted}) > 8 * len(middles)
    monkeypatch.setattr(plants_training, "SHIFT", 0)
    seen = plants_training.augmented(image.expand(400, -1, -1, -1))
    which = [[torch.equal(one, turn[0]) for turn in turns].index(True) for one in seen]
    assert set(which) == set(range(8))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_split_holds_out_the_same_share_of_every_class(share: float) -> None:
    kinds = torch.arange(4).repeat_interleave(torch.tensor([150, 60, 20, 1]))
    names = tuple(map(str, range(len(kinds))))
    table = plants_data.Labels(names, tuple("abcd"), torch.eye(4)[kinds], None)
    split = plants_training.stratified(table, share, seed=3)
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == list(range(231))
    counts = kinds[split.validation].bincount(minlength=4).tolist()
    assert counts == [round(150 * share), round(60 * share), round(20 * share), 0]
    again, other = (plants_training.stratified(table, share, seed=s) for s in (3, 4))
    assert torch.equal(again.validation, split.validation)
    assert not torch.equal(other.validation, split.validation)


# The run


def test_it_learns(leaves: Path) -> None:
    run = document(leaves, "--epochs", 8, "--val-share", 0.25)
    assert run["validation"]["accuracy"] == 1
    assert run["images"] == {"train": 18, "validation": 6}
    assert run["epochs"][-1]["training_loss"] < run["epochs"][0]["training_loss"]
    assert run["validation"]["loss"] == run["epochs"][-1]["validation_loss"]
    by_class = run["validation"]["classes"]
    assert by_class == [{"name": name, "images": 2, "right": 2} for name in CLASSES]


def test_the_loss_is_dense_cross_entropy_on_soft_labels(leaves: Path, monkeypatch) -> None:
    calls = []
    forward = xent.DenseCrossEntropy.forward

    def recorded(self, logits, labels):
        calls.append((logits.detach().clone(), labels.clone(), forward(self, logits, labels)))
        return calls[-1][-1]

    monkeypatch.setattr(xent.DenseCrossEntropy, "forward", recorded)
    run = document(leaves, "--epochs", 1, "--explain", 0)
    steps = [call for call in calls if call[2].ndim == 0]
    total = sum(len(labels) * loss.item() for _, labels, loss in steps)
    assert sum(len(labels) for _, labels, _ in steps) == run["images"]["train"]
    assert run["epochs"][0]["training_loss"] == pytest.approx(total / run["images"]["train"])
    for logits, labels, loss in steps:
        assert loss == xent.dense_cross_entropy(logits, labels)
        textbook = -(logits.double().log_softmax(-1) * labels).sum(-1).mean()
        assert loss.item() == pytest.approx(textbook.item(), rel=1e-6)
        torch.testing.assert_close(labels.sum(-1), torch.ones(len(labels)))
    soft = torch.cat([labels for _, labels, _ in steps]).amax(-1) < 0.999
    assert soft.any()


def test_the_validation_loss_is_that_of_the_kept_model(leaves: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept.pt"
    run = document(leaves, "--checkpoint", file)
    kept = torch.load(file, weights_only=True)
    table = plants_data.read_labels(leaves)
    rows = [table.names.index(name) for name in kept["split"]["validation"]]
    model = resnet.resnet("resnet18", len(CLASSES)).eval()
    model.load_state_dict(kept["model"])
    images = plants_data.read_images(leaves, kept["split"]["validation"], 24)
    loss = xent.dense_cross_entropy(model(images / 127.5 - 1), table.probabilities[rows])
    assert run["validation"]["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_a_seed_repeats_and_another_differs(leaves: Path) -> None:
    first, again, other = (document(leaves, "--seed", seed) for seed in (5, 5, 6))
    assert without_seconds(again) == without_seconds(first)
    assert other["epochs"][0]["training_loss"] != first["epochs"][0]["training_loss"]


def test_the_callers_threads_and_random_numbers_stay(leaves: Path) -> None:
    state = torch.get_rng_state()
    with threads_of_torch(2):
        train(leaves, "--threads", 1)
        assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("steps", range(1, 8))
def test_a_run_may_be_short(steps: int, leaves: Path) -> None:
    run = document(leaves, "--epochs", steps, "--batch-size", 24, "--explain", 0)
    assert len(run["epochs"]) == steps


def test_lines_table_and_the_worst_images(leaves: Path) -> None:
    run = document(leaves, "--explain", 2)
    shown = train(leaves, "--explain", 2).stdout
    assert ESCAPE not in shown
    for epoch in run["epochs"]:
        assert plants_report.epoch_line(plants_training.Epoch(**epoch), 2) in shown
        assert f"validation {epoch['validation_loss']:.3f} nats" in shown
    for row in run["validation"]["classes"]:
        percent = f"{row['right'] / row['images']:.1%}"
        assert re.search(rf"{row['name']} +{row['images']} +{row['right']} +{percent}", shown)
    assert f"Validation loss {run['validation']['loss']:.4f} nats" in shown
    losses = [entry["loss"] for entry in run["worst"]]
    assert len(losses) == 2
    assert losses == sorted(losses, reverse=True)
    assert losses[0] >= run["validation"]["loss"]
    together = " ".join(shown.split())
    for entry in run["worst"]:
        assert (leaves / entry["path"]).is_file()
        assert " ".join(str(leaves / entry["path"]).split()) in shown.replace("\n", "")
        words = f"label {entry['label']}, prediction {entry['prediction']}, "
        assert words + f"loss {entry['loss']:.4f} nats" in together
        assert entry["text"]
    assert "Worst image 2" in plants_report.page_text(run)
    assert "Worst image 3" not in shown


def test_what_is_explained(leaves: Path, monkeypatch) -> None:
    calls = []
    explain = xent.explain

    def recorded(logits, labels, **options):
        calls.append((logits, labels, options))
        return explain(logits, labels, **options)

    monkeypatch.setattr(xent, "explain", recorded)
    (entry,) = document(leaves, "--explain", 1)["worst"]
    ((logits, labels, options),) = calls
    losses = xent.dense_cross_entropy(logits, labels, reduction="none")
    assert options == {"row": int(losses.argmax()), "class_names": list(CLASSES)}
    assert entry["loss"] == losses.max().item()
    assert entry["label"] == CLASSES[int(labels[options["row"]].argmax())]


def test_soft_labels_are_named_with_their_shares() -> None:
    named = plants_report._named(CLASSES, torch.tensor([0.25, 0.0, 0.75]), least=0.0)
    assert named == "scab (75.0%), healthy (25.0%)"


def test_the_bar_is_for_terminals_and_colour_for_who_wants_it(leaves: Path) -> None:
    assert train(leaves).stderr == ""
    assert ESCAPE in train(leaves, FORCE_COLOR="1").stdout
    bare = train(leaves, "--quiet", FORCE_COLOR="1", NO_COLOR="1")
    assert ESCAPE not in bare.output
    json.loads(train(leaves, "--json", FORCE_COLOR="1").stdout)


# Checkpoints


def interrupted_in(epoch: int) -> Callable:
    run_epoch = plants_training.Training.run_epoch

    def interrupted(self, on_batch):
        if len(self.history) + 1 == epoch:
            raise KeyboardInterrupt
        return run_epoch(self, on_batch)

    return interrupted


def test_a_resumed_run_is_the_uninterrupted_run(leaves: Path, tmp_path: Path, monkeypatch) -> None:
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    options = ("--epochs", 4, "--seed", 2)
    expected = document(leaves, *options, "--checkpoint", whole)
    with monkeypatch.context() as patched:
        patched.setattr(plants_training.Training, "run_epoch", interrupted_in(3))
        stopped = train(leaves, *options, "--checkpoint", parts)
    assert stopped.exit_code == 130
    assert stopped.stderr == f"Interrupted; {parts} is whole, and --resume goes on from it.\n"
    assert torch.load(parts, weights_only=True)["epoch"] == 2
    resumed = document(leaves, *options, "--checkpoint", parts, "--resume")
    assert without_seconds(resumed) == without_seconds(expected)
    first, second = (torch.load(file, weights_only=True) for file in (whole, parts))
    assert first.keys() == second.keys() >= plants_checkpoint.KEYS
    for part in ("model", "optimizer", "random"):
        torch.testing.assert_close(second[part], first[part], rtol=0, atol=0)
    for part in ("kind", "settings", "classes", "split", "epoch", "scheduler"):
        assert second[part] == first[part]
    again = train(leaves, "--epochs", 4, "--checkpoint", parts, "--resume")
    assert "Resumed after epoch 4 of 4." in again.stdout
    assert f"{expected['validation']['loss']:.4f} nats" in again.stdout


def test_an_interrupted_write_leaves_the_last_checkpoint(
    leaves: Path, tmp_path: Path, monkeypatch
) -> None:
    file = tmp_path / "kept.pt"
    save = torch.save

    def interrupted(kept, stream):
        if kept["epoch"] == 2:
            stream.write(b"half")
            raise KeyboardInterrupt
        save(kept, stream)

    monkeypatch.setattr(torch, "save", interrupted)
    assert train(leaves, "--checkpoint", file).exit_code == 130
    assert list(tmp_path.iterdir()) == [file]
    assert torch.load(file, weights_only=True)["epoch"] == 1


def test_interruptions_say_what_was_kept(leaves: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(plants_training.Training, "run_epoch", interrupted_in(1))
    result = train(leaves)
    assert result.exit_code == 130
    assert result.stderr == "Interrupted; without --checkpoint nothing was kept.\n"
    result = train(leaves, "--checkpoint", tmp_path / "none.pt")
    assert result.exit_code == 130
    assert result.stderr.startswith("Interrupted before the first epoch was kept")


@pytest.fixture(scope="module")
def kept(leaves: Path, tmp_path_factory) -> Path:
    """A checkpoint after one of two epochs."""
    file = tmp_path_factory.mktemp("kept") / "kept.pt"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resnet, "WIDTH", 4)
        patched.setitem(resnet.BLOCKS, "resnet18", (1, 1, 1, 1))
        patched.setattr(plants_training.Training, "run_epoch", interrupted_in(2))
        assert train(leaves, "--checkpoint", file).exit_code == 130
    return file


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batch-size", 8), ("--batch-size 6, not 8",)),
        (("--mixup", 0), ("--mixup 0.2, not 0.0",)),
        (("--epochs", 3), ("--epochs 2, not 3",)),
        (("--model", "resnet34"), ("--model resnet18, not resnet34",)),
    ],
)
def test_a_checkpoint_of_other_settings(options, words, leaves: Path, kept: Path) -> None:
    refused(train(leaves, "--checkpoint", kept, "--resume", *options), *words)


def test_a_checkpoint_of_other_classes_or_images(own_leaves: Path, kept: Path) -> None:
    table = own_leaves / "train.csv"
    before = table.read_text()
    table.write_text(before.replace("rust", "mildew"))
    words = "knows the classes healthy, rust, scab; the data has healthy, mildew, scab."
    refused(train(own_leaves, "--checkpoint", kept, "--resume"), words)
    table.write_text(before.replace("Train_3,", "Other,"))
    refused(train(own_leaves, "--checkpoint", kept, "--resume"), "other images")


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", {"a": 1}, {"kind": 0}])
def test_what_is_no_checkpoint(content, leaves: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrong.pt"
    if isinstance(content, dict):
        if "kind" in content:
            content["kind"] = plants_checkpoint.KIND  # and nothing else
        torch.save(content, file)
    else:
        file.write_bytes(content)
    refused(train(leaves, "--checkpoint", file, "--resume"), str(file), "not a checkpoint")


def test_checkpoint_options_that_do_not_fit(leaves: Path, kept: Path, tmp_path: Path) -> None:
    refused(train(leaves, "--resume"), "--resume needs --checkpoint FILE")
    refused(train(leaves, "--checkpoint", kept), "exists; --resume goes on from it")
    refused(train(leaves, "--checkpoint", tmp_path / "no.pt", "--resume"), "There is no checkpoint")
    nowhere = tmp_path / "nowhere" / "file.pt"
    refused(train(leaves, "--checkpoint", nowhere), "cannot be written", "nowhere")


# Bad input


def test_missing_folder_and_table(tmp_path: Path) -> None:
    refused(train(tmp_path / "none"), f"There is no folder {tmp_path / 'none'}")
    refused(train(tmp_path), f"There is no {tmp_path / 'train.csv'}")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "has no column image_id; its header is empty"),
        ("id,a,b\nx,0,1\n", "has no column image_id; its header is id,a,b"),
        ("image_id,a\nx,1\n", "has 1 class columns (a)"),
        ("image_id,a,a\nx,0,1\n", "two columns named 'a'"),
        ("image_id,a,b\n", "has no line below its header"),
        ("image_id,a,b\nx,0,1\ny,1\n", "line 3: 2 cells; expected 3"),
        ("image_id,a,b\nx,0,1\nx,1,0\n", "line 3: image_id x stands in line 2 already"),
        ("image_id,a,b\nx,0,1\ny,many,0\n", "line 3: a is 'many'; expected a number"),
        ("image_id,a,b\nx,0,\n", "line 2: b is ''; expected a number"),
        ("image_id,a,b\nx,nan,0\n", "line 2: a is 'nan'; expected a number"),
        ("image_id,a,b\nx,-0.5,1.5\n", "line 2: a is -0.5; a probability is not negative"),
        ("image_id,a,b\nx,0,1\n", "1 images are too few"),
        (b"\xff\xfe\x00", "cannot be read as CSV in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used(table: str | bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_bytes(table if isinstance(table, bytes) else table.encode())
    refused(train(tmp_path), str(file) if "few" not in words else "", words)


def test_rows_that_do_not_sum_to_one_are_a_warning(own_leaves: Path) -> None:
    table = own_leaves / "train.csv"
    table.write_text(table.read_text().replace("Train_4,0,1,0", "Train_4,0.25,0.5,0"))
    result = train(own_leaves, "--explain", 0)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Warning: {table}: one row does not sum to 1; ")
    assert "Train_4, line 6, with 0.75." in result.stderr
    assert result.stderr.count("\n") == 1


def test_images_that_are_missing_or_broken(own_leaves: Path) -> None:
    image = own_leaves / "images" / "Train_7.jpg"
    whole = image.read_bytes()
    image.unlink()
    refused(train(own_leaves), f"There is no image {image}; 1 of 24 are missing.")
    for broken in (b"", b"no picture", whole[: len(whole) // 2]):
        image.write_bytes(broken)
        refused(train(own_leaves), f"{image} is not an image that can be read")


def test_pillow_is_named_where_it_is_missing(leaves: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    refused(train(leaves), "pip install 'xent[examples]'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epochs", "x"), "--epochs"),
        (("--val-share", "1"), "--val-share"),
        (("--model", "vgg"), "resnet34"),
        (("--verbose",), "--verbose"),
    ],
)
def test_options_that_do_not_exist(options, words: str, leaves: Path) -> None:
    refused(train(leaves, *options), words, "Try --help.")


def test_help_shows_how() -> None:
    shown = CliRunner().invoke(main, ["--help"]).stdout
    assert "python examples/plant_pathology.py --data DIR --checkpoint plants.pt --resume" in shown


def test_a_loss_that_is_not_finite_is_one_line(leaves: Path, monkeypatch) -> None:
    forward = xent.DenseCrossEntropy.forward
    monkeypatch.setattr(
        xent.DenseCrossEntropy, "forward", lambda *given: float("nan") * forward(*given)
    )
    result = train(leaves, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: The training loss is not finite in epoch 1.\n"


# As a program


def program(code: str, *options: object) -> subprocess.Popen:
    start = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import signal; {code}"
    start += "; import resnet; resnet.WIDTH = 4; from plant_pathology import main; main()"
    command = [sys.executable, "-c", start, *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_as_a_program_until_it_is_interrupted(leaves: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept.pt"
    # A job in the background is started without Ctrl-C, and so would this one be within it.
    running = program(
        "signal.signal(signal.SIGINT, signal.default_int_handler)",
        *("--data", leaves, "--size", 24, "--batch-size", 6, "--threads", 1),
        *("--epochs", 100000, "--checkpoint", file),
    )
    assert running.stdout is not None
    while not running.stdout.readline().startswith("epoch      2/"):
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 130
    assert errors == f"Interrupted; {file} is whole, and --resume goes on from it.\n"
    assert torch.load(file, weights_only=True)["epoch"] >= 2


def test_as_a_script(leaves: Path) -> None:
    options = ["--size", "16", "--epochs", "1", "--threads", "1", "--explain", "0", "--json"]
    script = [sys.executable, EXAMPLES / "plant_pathology.py", "--data", leaves]
    done = subprocess.run([*script, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["settings"]["model"] == "resnet18"
