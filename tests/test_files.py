"""Logits that are typed in or come out of files: all of it is read, or refused in one line."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from xent.cli.arrays import shown
from xent.cli.files import LabelledLogits, opening, read_labelled_logits
from xent.cli.main import OneLineErrors
from xent.cli.mistakes import BadInput, MissingExtra

LOGITS = torch.tensor([[1.5, -2.0, 0.25], [0.0, -math.inf, 3.0]])
SUFFIXES = [".npy", ".npz", ".csv", ".json", ".pt", ".pth", ".safetensors"]
NAMES = ("cat", "dog", "bird")
ACCEPTED = "logits|input, target|targets|label|labels, weight|weights, names|class_names|classes"


def refused(path: Path) -> str:
    """What is said of a file, without its name in front; always one line that can be printed."""
    with pytest.raises(BadInput) as caught:
        read_labelled_logits(path)
    message = caught.value.message
    assert caught.value.exit_code == 2
    assert message.isprintable(), message
    assert len(message) < 700
    return message.removeprefix(shown(path)).removeprefix(": ")


@pytest.fixture
def said(tmp_path: Path) -> Callable[[str, bytes | str], str]:
    """Writes a file of the suffix, and hands over what is said of it."""

    def of(suffix: str, content: bytes | str) -> str:
        path = tmp_path / f"x{suffix}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return refused(path)

    return of


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str, bytes | str], LabelledLogits]:
    """Writes a file of the suffix, and reads it."""

    def of(suffix: str, content: bytes | str) -> LabelledLogits:
        path = tmp_path / f"x{suffix}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_labelled_logits(path)

    return of


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def pt(document: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(document, file, **options)
    return file.getvalue()


def npy_header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        *product([".npy", ".NPZ"], ["float16", "float32", "float64"]),
        *product([".pt", ".PTH", ".safetensors"], ["float16", "bfloat16", "float32", "float64"]),
    ],
)
def test_binary_files_keep_the_dtype_and_every_bit(tmp_path, suffix: str, dtype: str) -> None:
    logits = LOGITS.to(getattr(torch, dtype))
    path = tmp_path / f"x{suffix}"
    if suffix == ".npy":
        path.write_bytes(npy(logits.numpy()))
    elif suffix == ".NPZ":
        path.write_bytes(npz(logits=logits.numpy()))
    elif suffix == ".safetensors":
        save_file({"logits": logits}, path)
    else:
        torch.save(logits, path)
    found = read_labelled_logits(path)
    assert found.logits.dtype is logits.dtype
    torch.testing.assert_close(found.logits, logits, rtol=0, atol=0)
    assert (found.target, found.weight, found.names) == (None, None, None)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4, 2)])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json", ".pt", ".safetensors"])
def test_every_shape_is_read(tmp_path, suffix: str, shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, dtype=torch.float64)
    path = tmp_path / f"x{suffix}"
    writers: dict[str, Callable[[], object]] = {
        ".npy": lambda: np.save(path, logits.numpy()),
        ".npz": lambda: np.savez(path, logits=logits.numpy()),
        ".json": lambda: path.write_text(json.dumps(logits.tolist())),
        ".pt": lambda: torch.save({"logits": logits}, path),
        ".safetensors": lambda: save_file({"logits": logits}, path),
    }
    writers[suffix]()
    assert torch.equal(read_labelled_logits(path).logits, logits)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(LOGITS.numpy()),
        LOGITS.numpy().astype(">f4"),
        LOGITS.numpy().astype(">f8"),
        LOGITS.numpy()[::-1],
    ],
    ids=["fortran", "big-endian float32", "big-endian float64", "reversed"],
)
def test_layout_and_byte_order_of_numpy_do_not_matter(read, array) -> None:
    assert read(".npy", npy(array)).logits.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])
def test_whole_logits_become_float32_and_targets_stay_as_they_are(
    read, tmp_path, suffix: str, dtype: str
) -> None:
    logits, target = np.array([[1, 2, 3]], dtype), np.array([2], dtype)
    entries = {"logits": torch.from_numpy(logits), "target": torch.from_numpy(target)}
    if suffix == ".safetensors":
        save_file(entries, tmp_path / "s.safetensors")
        found = read_labelled_logits(tmp_path / "s.safetensors")
    else:
        found = read(suffix, npz(logits=logits, target=target) if suffix == ".npz" else pt(entries))
    assert found.logits.dtype is torch.float32
    assert found.logits.tolist() == [[1, 2, 3]]
    assert found.target is not None
    assert found.target.dtype is getattr(torch, dtype)
    assert found.target.tolist() == [2]


@pytest.mark.parametrize("logits", ["logits", "input", "Logits"])
@pytest.mark.parametrize("target", ["target", "targets", "label", "labels"])
@pytest.mark.parametrize("weight", ["weight", "weights"])
@pytest.mark.parametrize("names", ["names", "class_names", "classes"])
def test_every_key_is_known_in_every_format(read, logits, target, weight, names) -> None:
    arrays = {logits: LOGITS.numpy(), target: np.array([0, 2]), weight: np.array([1.0, 2, 3])}
    lists = {key: value.tolist() for key, value in arrays.items()}
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    for found in (
        read(".npz", npz(**arrays, **{names: np.array(NAMES)})),
        read(".json", json.dumps(lists | {names: NAMES})),
        read(".pt", pt(tensors | {names: list(NAMES)})),
    ):
        assert found.logits.tolist() == LOGITS.tolist()
        assert found.target is not None
        assert found.target.dtype is torch.int64
        assert found.target.tolist() == [0, 2]
        assert found.weight is not None
        assert found.weight.tolist() == [1, 2, 3]
        assert found.names == NAMES


def test_a_single_unknown_key_holds_the_logits(read) -> None:
    assert read(".npz", npz(arr_0=LOGITS.numpy())).logits.shape == (2, 3)
    assert read(".json", '{"scores": [1, 2], "target": 0}').target == torch.tensor(0)
    assert read(".pt", pt({7: LOGITS})).logits.shape == (2, 3)


def test_probabilities_are_floating_point_targets(read) -> None:
    found = read(".json", '{"logits": [[1, 2]], "target": [[1, 0.0]], "weight": [1, 2]}')
    assert found.target is not None
    assert found.weight is not None
    assert {found.logits.dtype, found.target.dtype, found.weight.dtype} == {torch.float64}
    assert found.target.tolist() == [[1.0, 0.0]]


def test_json_reads_masked_classes_and_a_byte_order_mark(read) -> None:
    found = read(".json", "\ufeff[-Infinity, Infinity, NaN, -1.5e-3, 2]").logits.tolist()
    assert found[:2] == [-math.inf, math.inf]
    assert math.isnan(found[2])
    assert found[3:] == [-0.0015, 2.0]
    assert read(".json", "[1.5, 1" + "0" * 30 + "]").logits.tolist() == [1.5, 1e30]


def test_torch_files_may_hold_lists_parameters_and_views(read) -> None:
    parameter = torch.nn.Parameter(torch.randn(4, 3))
    found = read(".pt", pt({"logits": parameter[::2].t(), "target": [0, 2], "names": ("a", "b")}))
    assert torch.equal(found.logits, parameter[::2].t())
    assert not found.logits.requires_grad
    assert found.target is not None
    assert found.target.tolist() == [0, 2]


TABLES = {
    "no header": ("1,2.5\n-inf,nan\n", None, None),
    "semicolons": ("1;2.5\n-inf;nan\n", None, None),
    "tabs": ("1\t2.5\n-inf\tnan\n", None, None),
    "header": ("cat,dog\n1,2.5\n-inf,nan\n", ("cat", "dog"), None),
    "byte order mark": ("\ufeffcat,dog\n1,2.5\n-inf,nan\n", ("cat", "dog"), None),
    "line ends of Windows": ("cat,dog\r\n1,2.5\r\n-inf,nan\r\n", ("cat", "dog"), None),
    "line ends of old": ("cat,dog\r1,2.5\r-inf,nan", ("cat", "dog"), None),
    "blank lines": ("\n\ncat,dog\n\n1,2.5\n \n-inf,nan\n\n", ("cat", "dog"), None),
    "minus sign": ("cat,dog\n1,2.5\n−inf,nan\n", ("cat", "dog"), None),
    "index": ("cat,target,dog\n1,1,2.5\n-inf,-100,nan\n", ("cat", "dog"), [1, -100]),
    "name": ('"cat, big";dog; Label \n1;2.5;dog\n-inf;nan;cat, big', ("cat, big", "dog"), [1, 0]),
    "digits": ("0,1,labels\n1,2.5,1\n-inf,nan,0\n", ("0", "1"), [1, 0]),
    "quotes": ('"cat"\t"dog;s"\n"1"\t"2.5"\n"-inf"\t" nan "\n', ("cat", "dog;s"), None),
}


@pytest.mark.parametrize(("table", "names", "target"), TABLES.values(), ids=list(TABLES))
def test_tables_are_read(read, table: str, names, target) -> None:
    found = read(".csv", table)
    assert found.logits.dtype is torch.float64
    expected = torch.tensor([[1, 2.5], [-math.inf, math.nan]], dtype=torch.float64)
    torch.testing.assert_close(found.logits, expected, equal_nan=True)
    assert found.names == names
    assert (None if found.target is None else found.target.tolist()) == target


def test_a_path_of_any_bytes_can_be_read(tmp_path) -> None:
    for name in (b"a\nb", b"\x1b[31m", b"\xff\xfe", "ü".encode()):
        for suffix, write in ((".npy", npy), (".pt", lambda a: pt(torch.from_numpy(a)))):
            path = tmp_path / f"{os.fsdecode(name)}{suffix}"
            path.write_bytes(write(LOGITS.numpy()))
            assert read_labelled_logits(path).logits.shape == (2, 3)
    path = tmp_path / "\udcff.safetensors"
    save_file({"x": LOGITS}, tmp_path / "plain.safetensors")
    (tmp_path / "plain.safetensors").rename(path)
    assert read_labelled_logits(path).logits.shape == (2, 3)


def test_a_path_without_a_file_is_refused(tmp_path) -> None:
    assert refused(tmp_path / "a.npy") == (
        "expected a file to read; got none of this name. Check the path."
    )
    assert refused(tmp_path / "no" / "a.npy") == refused(tmp_path / "a.npy")
    folder = tmp_path / "a.csv"
    folder.mkdir()
    assert refused(folder) == "expected a file; got a folder. Name a file in it."
    assert (
        refused(folder / "..")
        == refused(Path())
        == (
            "expected a file whose name ends in .npy, .npz, .csv, .json, .pt, .pth, .safetensors;"
            " got no suffix."
        )
    )
    assert refused(tmp_path / "a.txt").endswith(".safetensors; got .txt.")
    loop = tmp_path / "loop.npy"
    loop.symlink_to(loop)
    assert refused(loop) == (
        "expected a file to read; got Too many levels of symbolic links. Check the path."
    )
    assert "File name too long" in refused(tmp_path / f"{'a' * 300}.npy")
    assert "embedded null byte" in refused(tmp_path / "a\0.npy")
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(tmp_path / "file" / "a.npy")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pipes_and_devices_are_refused_before_they_are_opened(tmp_path, suffix: str) -> None:
    pipe, device = tmp_path / f"pipe{suffix}", tmp_path / f"zero{suffix}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        assert refused(path) == (
            "expected a regular file; got a pipe, a device or a socket."
            " Save what it gives to a file first."
        )


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(LOGITS.numpy()))

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)  # the mode does not hold a superuser back
    assert refused(path) == (
        "expected a file to read; got no permission. Check its mode, and those of its folders."
    )


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("a\nb", "'{}/a\\nb.npy': "), ("\x1b[2J", "'{}/\\x1b[2J.npy': "), ("\udcff", "'{}/\\udcff")],
)
def test_names_of_files_are_shown_in_one_line(tmp_path, name: str, beginning: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_labelled_logits(tmp_path / f"{name}.npy")
    assert caught.value.message.startswith(beginning.format(tmp_path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_files_are_refused(said, suffix: str) -> None:
    assert said(suffix, b"") == "expected logits; got an empty file."


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_larger_than_the_bound_are_refused_unread(tmp_path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("wb") as file:
        file.truncate(5 * 2**30)  # a hole: it takes no space
    text = suffix in (".csv", ".json")
    assert refused(path) == (
        f"expected at most {'256 MiB of text' if text else '4096 MiB'}; got 5120 MiB."
        " Cut the rows that are wanted out of the file, and save only these."
    )


def whole(suffix: str, folder: Path) -> bytes:
    """A sound file of the suffix."""
    if suffix == ".safetensors":
        save_file({"logits": LOGITS, "target": torch.tensor([0, 2])}, folder / "w.safetensors")
        return (folder / "w.safetensors").read_bytes()
    return {
        ".npy": npy(LOGITS.numpy()),
        ".npz": npz(logits=LOGITS.numpy(), target=np.array([0, 2])),
        ".csv": b"cat,dog,target\n1,2,cat\n3,4,dog\n",
        ".json": b'{"logits": [[1, 2], [3, 4]], "target": [0, 1], "names": ["a", "b"]}',
    }.get(suffix, pt({"logits": LOGITS, "target": torch.tensor([0, 2])}))


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s != ".csv"])
def test_files_cut_off_anywhere_are_refused(tmp_path, suffix: str) -> None:
    content, path = whole(suffix, tmp_path), tmp_path / f"a{suffix}"
    for length in range(1, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:length])
        assert refused(path).startswith("expected "), length


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(SUFFIXES), content=st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(tmp_path, suffix: str, content: bytes) -> None:
    read_or_refused(tmp_path / f"a{suffix}", content)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    suffix=st.sampled_from(SUFFIXES),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
)
@example(".pt", [(0.0, 255)])
def test_files_with_wrong_bytes_are_read_or_refused(tmp_path, suffix: str, flips) -> None:
    content = bytearray(whole(suffix, tmp_path))
    for place, value in flips:
        content[int(place * (len(content) - 1))] = value
    read_or_refused(tmp_path / f"a{suffix}", bytes(content))


@given(text=st.text("0123456789.,;\t\n\r\"'-+einfa_[]{}: −", max_size=60))
@example('0\t""0')
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_of_any_kind_is_read_or_refused(tmp_path, text: str) -> None:
    for suffix in (".csv", ".json"):
        read_or_refused(tmp_path / f"a{suffix}", text.encode())


def read_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        found = read_labelled_logits(path)
    except BadInput as error:
        message = error.message
    else:
        message = f"{path}: read"
        assert found.logits.is_floating_point()
        assert found.logits.numel() > 0
    assert message.isprintable()
    assert message.startswith(str(path))


@pytest.mark.parametrize("shape", [(10**15,), (10**9, 10**15), (-1,), (2, 2), (1,), ()])
def test_a_header_that_promises_other_bytes_is_refused_before_memory_is_taken(
    said, shape: tuple[int, ...]
) -> None:
    content = npy_header(str(shape)) + bytes(12)
    for message in (said(".npy", content), said(".npz", zipped(logits=content))):
        assert message.removeprefix("logits: ") == (
            f"expected {4 * math.prod(shape)} bytes for float32 of shape {shape}; got 12."
        ) + (" Was it cut off? Save it again." if math.prod(shape) > 3 else "")


def test_headers_that_numpy_does_not_read_are_refused(said) -> None:
    for content in (
        npy_header("(-1, -1)") + bytes(4),
        npy_header("(1,)", "'<x9'"),
        npy_header("(1,)", "1" * 60),
        npy_header("(1.5,)"),
        npy_header("(10**15, 0)"),
        npy_header("(1000000000000000000000, 0)"),
        b"\x93NUMPY\x09\x00" + bytes(30),
    ):
        assert said(".npy", content).startswith("expected ")


def test_archives_that_unpack_to_more_than_the_bound_are_refused(said, monkeypatch) -> None:
    zeros = np.zeros((600, 1000))  # 4.6 MiB that pack to 5 KiB
    files = {".npz": npz(logits=zeros), ".pt": _packed(pt(torch.from_numpy(zeros)))}
    assert max(map(len, files.values())) < 2**16
    monkeypatch.setattr(opening, "LARGEST", 4 * 2**20)
    for suffix, content in files.items():
        assert said(suffix, content) == (
            ", unpacked: expected at most 4 MiB; got 5 MiB."
            " Cut the rows that are wanted out of the file, and save only these."
        )


def _packed(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", 8) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return file.getvalue()


def test_an_expanded_tensor_is_as_large_as_its_shape(said, monkeypatch) -> None:
    monkeypatch.setattr(opening, "LARGEST", 4 * 2**20)
    assert said(".pt", pt(torch.zeros(1).expand(2**21))).startswith(
        "expected at most 4 MiB; got 8 MiB."
    )


class Planted:
    """Unpickling it would leave a trace."""

    happened = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Planted, "happened", True)


def test_nothing_is_unpickled_but_tensors(said) -> None:
    objects = np.array([Planted()], dtype=object)
    assert said(".npy", npy(objects)) == (
        "expected float16, float32, float64 or integers; got Python objects."
        " Nothing is unpickled: make numbers or strings of them and save these."
    )
    assert "logits: expected float16" in said(".npz", npz(logits=objects))
    strings = np.array(NAMES, dtype=object)
    assert "names: expected " in said(".npz", npz(logits=LOGITS.numpy(), names=strings))
    message = (
        "expected tensors as torch.save writes them since torch 1.6; got {}."
        " Save tensors only: torch.save({{'logits': logits, 'target': target}}, path)."
    )
    pickled = message.format("a pickle that torch does not read as tensors alone")
    assert said(".pt", pt(Planted())) == pickled
    assert said(".pth", pt(torch.nn.Linear(2, 2))) == pickled
    old = pt(LOGITS, _use_new_zipfile_serialization=False)
    assert said(".pt", old) == message.format("another format")
    assert not Planted.happened


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.array([1j]), "complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64[D]"),
        (np.array([3], "m8[s]"), "timedelta64[s]"),
        (np.array([(1, 2.0)], "i4,f4"), "structured values"),
        (np.array([b"\0\1"], "V2"), "structured values"),
        (np.array([True]), "bool"),
        (np.array(["1.0"]), "strings"),
        (np.array([b"1.0"]), "|S3"),
        (np.array([""], "U0"), "strings"),
        pytest.param(
            np.ones(1, np.longdouble),
            str(np.dtype(np.longdouble)),
            marks=pytest.mark.skipif(np.finfo(np.longdouble).bits == 64, reason="is float64"),
        ),
    ],
)
def test_numpy_arrays_of_other_things_are_refused(said, array, got: str) -> None:
    expected = f"expected float16, float32, float64 or integers; got {got}."
    assert said(".npy", npy(array)).startswith(expected)
    assert said(".npz", npz(logits=array)).startswith(f"logits: {expected}")


@pytest.mark.parametrize(
    ("document", "got"),
    [
        (
            torch.tensor([1j]),
            "logits: expected float16, bfloat16, float32, float64 or integers; got complex64.",
        ),
        (torch.tensor([True]), "got bool."),
        (torch.tensor([1.0]).to(torch.float8_e5m2), "got float8_e5m2."),
        (
            LOGITS.to_sparse(),
            "expected a dense tensor; got one that is sparse, nested, quantized"
            " or without values. Save tensor.to_dense(), or tensor.dequantize().",
        ),
        (torch.empty(2, device="meta"), "expected a dense tensor"),
        (torch.empty(0, 3), "logits: expected at least one number; got shape (0, 3)."),
        ("text", "expected a tensor; got a 'str'."),
        ([LOGITS], "expected a tensor; got a 'list'."),
        ({"logits": None}, "logits: expected a tensor; got a 'NoneType'."),
        ({"logits": LOGITS, "target": [0, True]}, "target[1]: expected a number; got true."),
        (
            {"logits": LOGITS, "target": [10**30]},
            "target: expected integers of 64 bits",
        ),
        ({"logits": LOGITS, "names": "ab"}, "names: expected a list of strings; got 'ab'."),
        ({"logits": LOGITS, "names": [0]}, "names[0]: expected a string; got an integer."),
    ],
)
def test_torch_files_of_other_things_are_refused(said, document: object, got: str) -> None:
    assert got in said(".pt", pt(document))


def test_sparse_csr_which_torch_warns_of_is_refused(said, recwarn) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = pt(LOGITS.to_sparse_csr())
    assert said(".pt", content).startswith("expected a dense tensor")
    assert not recwarn.list


def test_too_little_memory_is_one_line(said, monkeypatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "load", exhausted)
    assert said(".npy", npy(LOGITS.numpy())) == (
        "expected an array as numpy.save writes it; got a failure to load it (MemoryError)."
    )


def test_headers_of_python_2_are_read_without_a_warning(read) -> None:
    assert read(".npy", npy_header("(2L,)") + bytes(8)).logits.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("members", "got"),
    [
        ({"logits": b"text"}, "logits: expected an array of numpy; got "),
        ({"logits": npy(LOGITS.numpy())[:-4]}, "logits: expected 24 bytes for float32 of shape"),
    ],
)
def test_members_of_archives_are_checked(said, members: dict[str, bytes], got: str) -> None:
    assert said(".npz", zipped(**members)).startswith(got)


def test_an_archive_with_two_arrays_of_one_name_is_refused(said) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("logits", "logits.npy"):
            archive.writestr(name, npy(LOGITS.numpy()))
    assert said(".npz", file.getvalue()) == "expected each array once; got two of one name."


def test_formats_under_another_suffix_are_refused(said, tmp_path) -> None:
    contents = {suffix: whole(suffix, tmp_path) for suffix in SUFFIXES}
    for suffix in SUFFIXES:
        for other, content in contents.items():
            if suffix != other and {suffix, other} != {".pt", ".pth"}:
                assert "expected " in said(suffix, content), (suffix, other)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"a": [1], "b": [2]}, f"expected logits and, if wanted, the rest under the keys"
         f" {ACCEPTED}; got the keys 'a', 'b'. Save only these, under these keys."),
        ({}, "got no keys."),
        ({"target": 0}, "got the keys 'target'."),
        ({"logits": [1], "weigth": [1]}, "got the keys 'logits', 'weigth'."),
        ({str(n): [n] for n in range(20)}, "'6', '7' and 12 more."),
        ({"logits": [1], "input": [1]}, "expected one key for the logits; got 'logits' and"
         " 'input'. Keep one of them."),
        ({"logits": [1], "label": 0, "Labels": 0}, "expected one key for the target"),
        ({"logits": [[1, 2], [3]]}, "logits[1]: expected a list of 2 values, as in the first"
         " one; got one of 1."),
        ({"logits": [[[1], [2]], [[3], []]]}, "logits[1][1]: expected a list of 1 values"),
        ({"logits": [[1, 2], 3]}, "logits[1]: expected a list of 2 values, as in the first one;"
         " got an integer."),
        ({"logits": [1, [2]]}, "logits[1]: expected a number; got a list."),
        ({"logits": [[1, 2], [3, None]]}, "logits[1][1]: expected a number; got null."),
        ({"logits": [1, "2"]}, "logits[1]: expected a number; got '2'."),
        ({"logits": [True]}, "logits[0]: expected a number; got true."),
        ({"logits": {"a": 1}}, "logits: expected a number; got an object."),
        ({"logits": None}, "logits: expected a number; got null."),
        ({"error": "x" * 99}, "error: expected a number; got 'xxxxxxxxxxxx...xxxxxxxxxxxxx'."),
        ({"\x1b[2J" + "x" * 999: None}, "'\\x1b[2Jxxxxx"),
        ({"logits": []}, "logits: expected at least one number; got shape (0,)."),
        ({"logits": [[], []]}, "logits: expected at least one number; got shape (2, 0)."),
        ({"logits": [1], "target": []}, "target: expected at least one number"),
        ({"logits": [1], "weight": []}, "weight: expected at least one number"),
        ({"logits": [1], "target": [[0.5, math.nan]]}, "target[0, 1]: expected class indices, or"
         " finite probabilities; got nan."),
        ({"logits": [1], "target": math.inf}, "target: expected class indices, or finite"
         " probabilities; got inf."),
        ({"logits": [1], "target": 2**64}, "target: expected integers of 64 bits, or floats; got"
         " a larger integer."),
        ({"logits": [1.0, 10**400]}, "logits: expected integers of 64 bits"),
        ({"logits": [1], "names": ["a", 1]}, "names[1]: expected a string; got an integer."),
        ({"logits": [1], "names": {"a": 0}}, "names: expected a list of strings; got an object."),
        ({"logits": [1], "names": ["a", " a "]}, "names: expected a different name for each"
         " class; got 'a' as names 1 and 2."),
        ({"logits": [1], "names": ["a", " "]}, "names: expected a different name for each class;"
         " got no name 2."),
        ({"logits": [1], "names": []}, "names: expected a name for each class; got none."),
        ({"logits": [1], "names": ["\x1b[2J"]}, "got control characters in name 1, '\\x1b[2J'."),
        ({"logits": [1], "names": ["\ud800"]}, "got control characters in name 1, '\\ud800'."),
        ("logits", "logits: expected a number; got 'logits'."),
    ],
)  # fmt: skip
def test_json_of_other_things_is_refused(said, document: object, message: str) -> None:
    assert message in said(".json", json.dumps(document))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "expected JSON: an object with logits, or lists of numbers; got Expecting ','"
         " delimiter: line 1 column"),
        ("[1e999]", "expected numbers that float64 holds; got '1e999'."),
        ('{"logits": [1], "logits": [2]}', "expected each key once; got 'logits' twice."),
        ('{"logits": {"a": 1, "a": 2}}', "expected each key once; got 'a' twice."),
        ("[" * 9 + "1" + "]" * 9, "logits: expected at most 8 axes; got lists in deeper lists."),
        ("[" * 10**5, "expected at most 8 axes; got far deeper lists."),
        ('{"a":' * 10**5, "expected at most 8 axes; got far deeper lists."),
        ("9" * 5000, "expected JSON: an object with logits, or lists of numbers; got Exceeds"),
        (b"[1, \xff]", "expected text in UTF-8; got the bytes b'\\xff]' at position 4."
         " Save it as UTF-8."),
        ("[1]".encode("utf-16"), "expected text in UTF-8; got the bytes b'\\xff\\xfe[\\x00' at"),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_not_json_is_refused(said, text: bytes | str, message: str) -> None:
    assert said(".json", text).startswith(message)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a,b\n1,2\n3\n", "row 3: expected 2 values, as in the first row; got 1."),
        ("1,2\n\n3,4,5\n", "row 3: expected 2 values, as in the first row; got 3."),
        ("a,b\n1,2\n3,x\n", "row 3, column 2: expected a number such as 1.5 or -inf; got 'x'."
         " Columns are separated by commas, semicolons or tabs."),
        ("a,b\n1,2\n,\n", "row 3, column 1: expected a number such as 1.5 or -inf; got ''."),
        ("1,2\n1e999,4\n", "row 2, column 1: expected a number such as 1.5 or -inf; got '1e999'."),
        ("1,2\n1_0,4\n", "row 2, column 1: expected a number such as 1.5 or -inf; got '1_0'."),
        ("1 2\n3 4\n", "row 2, column 1: expected a number such as 1.5 or -inf; got '3 4'."),
        ("a,b\n", "expected rows of numbers; got only a header."),
        ("target\n0\n", "row 1: expected a name for each class; got none."),
        (" \n\n", "expected rows of numbers; got none."),
        ("\ufeff", "expected rows of numbers; got none."),
        (",a,b\n0,1,2\n", "row 1: expected the name of a class above every column; got a column"
         " without a name. Is it an index? Save the table without it."),
        ("a,a\n1,2\n", "row 1: expected a different name for each class; got 'a' as names 1"),
        ("a,\x1b[2J\n1,2\n", "row 1: expected a different name for each class; got control"),
        ("a,target,label\n1,2,3\n", "row 1: expected one column for the target"
         " (target|targets|label|labels); got 'target' and 'label'. Keep one of them;"
         " probabilities as a target are read from .json or .npz."),
        ("a,b,target\n1,2,c\n", "row 2, column 3: expected the index of a class, or its name in"
         " the header; got 'c'."),
        ("a,b,target\n1,2,0.5\n", "row 2, column 3: expected the index of a class, or its name in"
         " the header; got '0.5'."),
        ("a,b,target\n1,2,\n", "row 2, column 3: expected the index of a class, or its name in"
         " the header; got nothing."),
        ("1,0,target\n1,2,0\n", "row 2, column 3: expected one class; got 0, an index, and also"
         " the name of class 1. Give the names letters, or leave them away."),
        ('a,b\n1,2\n"3,4\n', "row 3: expected separated values; got unexpected end of data."),
        (b"a,b\n1,\xe4\n", "expected text in UTF-8; got the bytes b'\\xe4\\n' at position 6."),
        ("a,b\n1," + "9" * 200000, "row 2: expected separated values; got field larger than"),
    ],
    ids=range(22),
)  # fmt: skip
def test_tables_with_mistakes_are_refused(said, table: bytes | str, message: str) -> None:
    assert said(".csv", table).startswith(message)


def test_names_in_archives_are_strings_in_one_row(said) -> None:
    for names, got in (
        (np.array([1, 2]), "int64 of shape (2,)"),
        (np.array([["a"]]), "strings of shape (1, 1)"),
        (np.array("a"), "strings of shape ()"),
    ):
        assert said(".npz", npz(logits=LOGITS.numpy(), names=names)) == (
            f"names: expected strings in one row, such as numpy.array(['cat', 'dog']); got {got}."
        )
    twice = np.array(["a", "a"])
    assert "got 'a' as names 1 and 2" in said(".npz", npz(logits=LOGITS.numpy(), names=twice))


def test_targets_that_are_not_finite_are_refused(said) -> None:
    content = npz(logits=LOGITS.numpy(), target=np.array([1.0, np.nan], np.float16))
    assert said(".npz", content) == (
        "target[1]: expected class indices, or finite probabilities; got nan."
    )


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 2)])
def test_empty_arrays_are_refused(said, tmp_path, rows: slice) -> None:
    empty = LOGITS[rows, :0]
    save_file({"logits": empty}, tmp_path / "e.safetensors")
    message = f"logits: expected at least one number; got shape {tuple(empty.shape)}."
    assert said(".npy", npy(empty.numpy())) == message
    assert said(".npz", npz(logits=empty.numpy())) == message
    assert refused(tmp_path / "e.safetensors") == message


def test_without_safetensors_the_command_that_installs_it_is_named(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"logits": LOGITS}, path)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(MissingExtra) as caught:
        read_labelled_logits(path)
    assert caught.value.message == f"{path} needs safetensors: pip install 'xent[files]'"
    assert caught.value.exit_code == 2


def test_the_command_line_shows_one_line(tmp_path) -> None:
    @click.group(cls=OneLineErrors)
    def group() -> None: ...

    @group.command()
    @click.argument("path", type=click.Path(path_type=Path))
    def show(path: Path) -> None:
        read_labelled_logits(path)

    result = CliRunner().invoke(group, ["show", str(tmp_path / "a\nb.npy")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "a\\nb.npy': expected a file to read; got none of this name." in result.stderr
