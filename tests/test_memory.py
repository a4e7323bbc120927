"""Gradient memory returns when nothing sees it any more, never earlier; and the pool is bounded."""

from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import stateful
from hypothesis import strategies as st
from torch import Tensor

import xent.backends.numba.memory as memory

MIB = 1 << 20
POISON = 0xFF  # NaN in every floating-point dtype


def poison(buffer: mmap.mmap) -> None:
    np.frombuffer(buffer, dtype=np.uint8).fill(POISON)


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small buffers are pooled, too; what comes back is poisoned; each test has its own pool."""
    gc.collect()
    monkeypatch.setattr(memory, "SMALLEST", 1024)
    monkeypatch.setattr(memory, "_limit", 256 * MIB)
    monkeypatch.setattr(memory, "_on_return", poison)
    memory.empty_cache()
    yield
    memory.empty_cache()


def logits(mib: float = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(int(mib * MIB) // dtype.itemsize, dtype=dtype)


def run(script: str, **environment: str) -> str:
    """Runs a script in a process of its own; it must succeed and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
Layout = Callable[[Tensor], Tensor]  # of 8000 numbers

DENSE: dict[str, Layout] = {
    "vector": lambda x: x,
    "matrix": lambda x: x.view(80, 100),
    "transposed": lambda x: x.view(80, 100).t(),
    "channels last": lambda x: x.view(4, 20, 10, 10).permute(0, 3, 1, 2),
    "permuted": lambda x: x.view(4, 20, 10, 10).permute(2, 0, 3, 1),
    "single axes": lambda x: x.view(1, 1, 8000).permute(2, 1, 0),
    "odd stride of a single axis": lambda x: x.as_strided((80, 1, 100), (100, 7, 1)),
    "odd stride, transposed": lambda x: x.as_strided((80, 1, 100), (1, 7, 80)),
}
GAPS: dict[str, Layout] = {
    "every other row": lambda x: x.view(80, 100)[::2],
    "every other class": lambda x: x.view(80, 100)[:, ::2],
    "half of the classes": lambda x: x.view(80, 100)[:, :50],
    "half of the rows, transposed": lambda x: x.view(80, 100)[:, :50].t(),
    "expanded": lambda x: x[:80, None].expand(80, 50),
    "overlapping": lambda x: x.as_strided((40, 100), (50, 1)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [1, 1 << 30], ids=["pooled", "small"])
@pytest.mark.parametrize("layout", [*DENSE, *GAPS])
def test_shape_dtype_and_strides(
    layout: str, threshold: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SMALLEST", threshold)
    like = (DENSE | GAPS)[layout](torch.zeros(8000, dtype=dtype))
    gradient = memory.gradient_like(like)
    expected = like if layout in DENSE else torch.empty(like.shape)
    assert (gradient.shape, gradient.dtype, gradient.device) == (like.shape, dtype, like.device)
    assert gradient.stride() == expected.stride()
    assert gradient.untyped_storage().nbytes() == like.numel() * dtype.itemsize
    assert gradient.is_leaf
    assert not gradient.requires_grad
    assert gradient._base is None
    assert gradient.data_ptr() % 64 == 0
    gradient.copy_(like).add_(1)
    assert (gradient == 1).all()
    del gradient
    assert (memory.cached_bytes() > 0) == (threshold == 1)


@pytest.mark.parametrize("shape", [(), (0,), (0, 7), (3, 0, 2)])
def test_nothing_much_needs_no_buffer(shape: tuple[int, ...]) -> None:
    assert memory.gradient_like(torch.zeros(shape)).shape == shape
    assert memory.cached_bytes() == 0


def test_small_tensors_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SMALLEST", MIB)
    memory.gradient_like(logits(0.99))
    assert memory.cached_bytes() == 0
    memory.gradient_like(logits(1))
    assert memory.cached_bytes() == 2 * MIB


def test_modes_of_torch() -> None:
    with torch.inference_mode():
        assert memory.gradient_like(logits()).is_inference()
    with torch.device("meta"):
        assert memory.gradient_like(torch.zeros(10_000, device="cpu")).device.type == "cpu"
    meta = torch.zeros(10_000, device="meta")
    assert memory.gradient_like(meta).device.type == "meta"


WITNESSES: dict[str, Callable[[Tensor], Any]] = {
    "view": lambda g: g[3:5],
    "other dtype": lambda g: g.view(torch.uint8),
    "data": lambda g: g.data,
    "detach": lambda g: g.detach(),
    "storage": lambda g: g.untyped_storage(),
    "set_": lambda g: torch.empty(0, dtype=g.dtype).set_(g),
    "numpy": lambda g: g.view(torch.uint8).numpy()[5:],
    "memoryview": lambda g: memoryview(g.view(torch.uint8).numpy()),
    "dlpack": lambda g: torch.from_dlpack(g),
    "numpy dlpack": lambda g: np.from_dlpack(g.view(torch.uint8)),
    "saved": lambda g: torch.ones_like(g, requires_grad=True) * g,
    "grad": lambda g: _parameter_with(g),
    "cycle": lambda g: _cycle_with(g),
    "resize_ down": lambda g: g.resize_(3),
}


def _parameter_with(gradient: Tensor) -> Tensor:
    parameter = torch.zeros_like(gradient, requires_grad=True)
    parameter.grad = gradient
    return parameter


def _cycle_with(gradient: Tensor) -> list[Any]:
    cycle: list[Any] = [gradient]
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITNESSES)
def test_a_buffer_stays_while_anything_sees_it(name: str, dtype: torch.dtype) -> None:
    gradient = memory.gradient_like(logits(dtype=dtype)).fill_(3)
    address = gradient.data_ptr()
    witness = WITNESSES[name](gradient)
    del gradient
    gc.collect()
    assert memory.cached_bytes() == 0
    assert memory.gradient_like(logits()).data_ptr() != address
    del witness
    gc.collect()
    assert memory.cached_bytes() == 4 * MIB


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "clone": lambda g: g.clone(),
    "deepcopy": lambda g: copy.deepcopy(g),
    "pickle": lambda g: pickle.loads(pickle.dumps(g)),
    "share_memory_": lambda g: g.share_memory_(),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_needs_the_buffer_no_more(name: str) -> None:
    gradient = memory.gradient_like(logits()).fill_(3)
    other = COPIES[name](gradient)
    del gradient
    assert memory.cached_bytes() == 2 * MIB
    assert (other == 3).all()


def test_pickles_hold_the_gradient_and_not_its_buffer() -> None:
    assert len(pickle.dumps(memory.gradient_like(logits(0.1)))) < 0.2 * MIB


def test_a_gradient_cannot_grow_in_place() -> None:
    gradient = memory.gradient_like(logits(1))
    with pytest.raises(RuntimeError, match="not resizable"):
        gradient.resize_(2 * MIB)


def test_what_comes_back_is_poisoned_by_these_tests() -> None:
    gradient = memory.gradient_like(logits()).fill_(3)
    address = gradient.data_ptr()
    del gradient
    again = memory.gradient_like(logits())
    assert again.data_ptr() == address
    assert again.isnan().all()


def test_the_smallest_buffer_that_fits_is_reused() -> None:
    leases = [memory.gradient_like(logits(size)) for size in (8, 4, 6)]
    four = leases[1].data_ptr()
    leases.clear()
    assert memory.cached_bytes() == 18 * MIB
    first = memory.gradient_like(logits(4))  # 6 MiB would do
    assert first.data_ptr() == four
    assert memory.cached_bytes() == 14 * MIB
    second = memory.gradient_like(logits(3.5))  # 6 MiB are too many for it
    assert memory.cached_bytes() == 14 * MIB
    third = memory.gradient_like(logits(4))  # and just right for this one
    assert memory.cached_bytes() == 8 * MIB
    del first, second, third


def test_the_oldest_buffer_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_limit", 12 * MIB)
    leases = [memory.gradient_like(logits(size)) for size in (8, 4, 2)]
    for expected in (8, 12, 6):
        leases.pop(0)
        assert memory.cached_bytes() == expected * MIB


def test_a_buffer_above_the_limit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_limit", 6 * MIB)
    leases = [memory.gradient_like(logits(size)) for size in (4, 8)]
    leases.pop(0)
    leases.pop(0)
    assert memory.cached_bytes() == 4 * MIB


def test_empty_cache_frees_what_is_idle_only() -> None:
    kept = memory.gradient_like(logits(4)).fill_(3)
    memory.gradient_like(logits(8))
    assert memory.empty_cache() == 8 * MIB
    assert memory.cached_bytes() == memory.empty_cache() == 0
    assert (kept == 3).all()


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_no_memory_to_map(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def refuse(*args: object, **kwargs: object) -> mmap.mmap:
        calls.append(memory.cached_bytes())
        raise error("no memory")

    memory.gradient_like(logits(4))
    monkeypatch.setattr(mmap, "mmap", refuse)
    gradient = memory.gradient_like(logits(32)).fill_(3)
    assert calls == [4 * MIB, 0]  # it tries again once the pool is empty
    assert gradient.shape == logits(32).shape


def test_impossible_sizes_fail_in_torchs_words() -> None:
    with pytest.raises(RuntimeError, match=r"memory|overflow"):
        memory.gradient_like(torch.zeros(1).expand(1 << 55))
    with pytest.raises(RuntimeError, match=r"memory|overflow"):
        memory.gradient_like(torch.zeros(1).expand((1 << 62) - 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1000000", 10**6), ("3k", 3 << 10), ("512M", 512 * MIB), (" 2G ", 2 << 30)],
)
def test_limit_of_the_environment(text: str, expected: int) -> None:
    script = "from xent.backends.numba import memory; print(memory._limit)"
    assert int(run(script, XENT_CACHE_BYTES=text)) == expected


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5G", "512MB", "0x10", "٣"])
def test_a_malformed_limit_says_so(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENT_CACHE_BYTES", text)
    with pytest.raises(ValueError, match="XENT_CACHE_BYTES: expected a number of bytes") as error:
        memory._configured_limit()
    assert f"got {text!r}" in str(error.value)


def test_default_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XENT_CACHE_BYTES", raising=False)
    for physical, expected in ((8 << 30, 1 << 30), (1 << 40, 4 << 30)):
        monkeypatch.setattr(memory, "_physical_memory", lambda physical=physical: physical)
        assert memory._configured_limit() == expected


def test_physical_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 64 * MIB < memory._physical_memory() <= 1 << 50
    monkeypatch.delattr(os, "sysconf")
    assert memory._physical_memory() > 64 * MIB


def test_zero_turns_the_pool_off() -> None:
    script = """
        from pathlib import Path
        import torch
        from xent.backends.numba import memory

        def mapped():  # KiB
            lines = Path("/proc/self/smaps").read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("Size:"))

        like = torch.zeros(64 << 20)
        before = mapped()
        gradient = memory.gradient_like(like)
        during = mapped()
        del gradient
        print(memory.cached_bytes(), during - before > 200_000, mapped() - before < 10_000)
    """
    assert run(script, XENT_CACHE_BYTES="0").split() == ["0", "True", "True"]


@pytest.mark.parametrize("missing", ["MADV_HUGEPAGE", "MAP_PRIVATE MAP_ANONYMOUS"])
def test_systems_without_huge_pages_or_private_maps(missing: str) -> None:
    script = f"""
        import mmap, os
        import numpy, torch
        for name in {missing!r}.split():
            delattr(mmap, name)
        del os.register_at_fork, os.sysconf
        from xent.backends.numba import memory
        like = torch.zeros(2 << 20)
        memory.gradient_like(like).fill_(3)
        print(memory.cached_bytes(), memory._limit > 0)
    """
    expected = "8388608" if missing == "MADV_HUGEPAGE" else "0"
    assert run(script).split() == [expected, "True"]


def test_importing_xent_loads_neither_numpy_memory_nor_threads() -> None:
    run("import sys, xent; assert not [m for m in sys.modules if m.startswith('xent.backends.nu')]")


def test_a_forked_process_has_its_own_memory() -> None:
    script = """
        import os, torch
        from xent.backends.numba import memory
        torch.set_num_threads(1)  # those of OpenMP do not survive a fork
        like = torch.zeros(2 << 20)
        kept = memory.gradient_like(like).fill_(1)
        idle = memory.gradient_like(like)
        del idle
        assert memory.cached_bytes() == 8 << 20
        child = os.fork()
        if child == 0:
            assert memory.cached_bytes() == 0
            assert (kept == 1).all()
            kept.fill_(2)
            fresh = memory.gradient_like(like).fill_(2)
            del kept
            assert memory.cached_bytes() == 0  # the parent's buffer is not taken for the child's
            del fresh
            assert memory.cached_bytes() == 8 << 20
            raise SystemExit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert (kept == 1).all()
        assert memory.cached_bytes() == 8 << 20
        del kept
        assert memory.cached_bytes() == 16 << 20
        print("parent is well")
    """
    assert run(script) == "parent is well\n"


@pytest.mark.parametrize("holder", ["builtins.kept", "memory.kept", "torch.kept", "kept"])
def test_exit_is_silent_while_buffers_live(holder: str) -> None:
    script = f"""
        import builtins, torch
        from xent.backends.numba import memory
        {holder} = gradient = memory.gradient_like(torch.zeros(2 << 20))
        cycle = [gradient.numpy()]
        cycle.append(cycle)
        idle = memory.gradient_like(torch.zeros(2 << 20))
        del idle
        class Last:
            def __del__(self, memory=memory, torch=torch):
                memory.gradient_like(torch.zeros(2 << 20)).fill_(1)
        last = Last()
    """
    assert run(script) == ""


def test_many_threads() -> None:
    errors: list[BaseException] = []
    limit = 24 * MIB
    memory._limit = limit

    def train(seed: int) -> None:
        try:
            choose = random.Random(seed)
            kept: list[tuple[Tensor, float]] = []
            for step in range(100):
                value = float(seed * 1000 + step)
                size = choose.choice([0.1, 1, 2, 4])
                kept.append((memory.gradient_like(logits(size)).fill_(value), value))
                if len(kept) > 3:
                    gradient, value = kept.pop(choose.randrange(4))
                    assert (gradient == value).all()
                if step % 20 == 0:
                    memory.empty_cache()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=train, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert not errors
    assert memory.cached_bytes() <= limit


def test_collections_at_any_moment() -> None:
    """Cyclic gradients return within whatever the same thread is doing at the time."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for step in range(100):
            gradient = memory.gradient_like(logits(0.1)).fill_(step)
            assert (gradient == step).all()
            _cycle_with(gradient)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    del gradient
    assert 0 < memory.cached_bytes() <= 256 * MIB


def test_autograd_keeps_gradients_alive() -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            gradient = memory.gradient_like(x)
            ctx.save_for_backward(gradient.copy_(3 * x * x))
            return x**3

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            (gradient,) = ctx.saved_tensors
            return memory.gradient_like(gradient).copy_(gradient * grad)

    x = torch.full((100, 100), 2.0, requires_grad=True)
    for step in range(1, 4):
        Cube.apply(x).sum().backward()
        assert x.grad is not None
        assert (x.grad == 12 * step).all()
    x.grad = None
    gc.collect()
    assert memory.cached_bytes() > 0


class Leases(stateful.RuleBasedStateMachine):
    """Gradients, and what was derived from them, keep their contents until the last one is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, float, int]] = []
        self.leases = 0

    def pick(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.kept) - 1))

    @stateful.rule(mib=st.sampled_from([0.01, 0.5, 2, 3, 5]), dtype=st.sampled_from(DTYPES))
    def lease(self, mib: float, dtype: torch.dtype) -> None:
        idle = {np.frombuffer(b, dtype=np.uint8).ctypes.data for b in memory._idle}
        gradient = memory.gradient_like(logits(mib, dtype))
        if gradient.data_ptr() in idle:
            assert gradient.isnan().all()
        self.leases += 1
        value = float(self.leases % 200)
        self.kept.append((gradient.fill_(value), value, self.leases))

    @stateful.precondition(lambda self: self.kept)
    @stateful.rule(data=st.data(), how=st.sampled_from(["view", "detach", "numpy", "storage"]))
    def derive(self, data: st.DataObject, how: str) -> None:
        gradient, value, lease = self.kept[self.pick(data)]
        if how == "view":
            other = gradient[len(gradient) // 2 :]
        elif how == "detach":
            other = gradient.detach()
        elif how == "numpy":
            other = torch.from_numpy(gradient.view(torch.int16).numpy()).view(gradient.dtype)
        else:
            other = torch.empty(0, dtype=gradient.dtype).set_(gradient.untyped_storage())
        self.kept.append((other, value, lease))

    @stateful.precondition(lambda self: self.kept)
    @stateful.rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        before = memory.cached_bytes()
        _, _, lease = self.kept.pop(self.pick(data))
        del _
        alive = any(lease == other for _, _, other in self.kept)
        assert (memory.cached_bytes() > before) == (not alive)

    @stateful.rule()
    def empty(self) -> None:
        memory.empty_cache()

    @stateful.invariant()
    def contents_are_kept(self) -> None:
        for tensor, value, _ in self.kept:
            assert (tensor == value).all()
        for buffer in memory._idle:
            assert (np.frombuffer(buffer, dtype=np.uint8) == POISON).all()

    def teardown(self) -> None:
        self.kept.clear()
        memory.empty_cache()


def test_random_lives(pool: None) -> None:
    stateful.run_state_machine_as_test(
        Leases,
        settings=hypothesis.settings(max_examples=25, stateful_step_count=25, deadline=None),
    )
