"""The CUDA kernels' PTX, run by the emulator with the blocks of a real GPU.

What the simulator cannot show: warps and shuffles, 256 threads, races, indices of huge arrays; and
what a stored value costs. Whatever the emulator finds raises.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator does not compile", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda")
pytest.importorskip("nvidia.cu13", reason="needs numba-cuda[cu13]")

from onnxcam.kernels import Axis, View, cuda, cuda_arrays, reference

from .machine import Array, Machine, machine

__all__ = ["machine"]
DTYPES = ("f4", "f2")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def case(n: int, t: int, k: int, places: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    make = rng(k)
    a = make.uniform(-1, 1, (n, k, places)).astype(dtype)
    return a, make.uniform(-1, 1, (n, t, k, places)).astype(dtype)


def close(machine: Machine, name: str, *arrays: np.ndarray, relu: bool = False) -> None:
    """Compare a sum over channels, relative to the largest that its terms allow."""
    found = getattr(cuda, name)(*map(machine.send, arrays), relu=relu).data
    expected = getattr(reference, name)(*arrays, relu=relu)
    a, w = (x.astype(float) for x in arrays)
    if name == "combine":
        w = w.mean(axis=3)
    scale = np.abs(a[:, None] * w.reshape(*w.shape, *[1] * (4 - w.ndim))).sum(axis=2).max()
    assert np.abs(found.astype(float) - expected).max() <= 1e-5 * scale


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "t", "k", "places", "kernel"),
    [
        (2, 1, 70, 49, "combine_rows_2"),  # 7x7; fewer channels left than a warp takes
        (1, 2, 40, 32, "combine_rows_1"),  # every lane has one
        (1, 1, 37, 17, "combine_rows_1"),
        (1, 1, 11, 196, "combine_rows_7"),  # 14x14
        (1, 2, 5, 3, "combine"),
        (1, 2, 300, 16, "combine"),  # more than a block stages at once
        (1, 3, 3, 289, "pool_rows"),  # 17x17
        (1, 1, 2, 8193, "pool"),
    ],
)
def test_combine(
    n: int, t: int, k: int, places: int, kernel: str, dtype: str, machine: Machine
) -> None:
    close(machine, "combine", *case(n, t, k, places, dtype), relu=True)
    assert machine.launched[0][0] == kernel


@pytest.mark.parametrize("places", [64, 65, 100, 129, 192, 256])
def test_combine_at_every_width(places: int, machine: Machine) -> None:
    close(machine, "combine", *case(1, 1, 19, places, "f4"))
    assert machine.launched[0][0] == f"combine_rows_{-(-places // 32)}"


def test_nan_stays_where_it_is(machine: Machine) -> None:
    a, g = case(1, 2, 70, 49, "f4")
    a[0, 9, 48], g[0, 1, 69, 0] = np.nan, np.inf
    for relu in (False, True):
        found = cuda.combine(machine.send(a), machine.send(g), relu=relu).data
        expected = reference.combine(a, g, relu=relu)
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_channels_shared_out_and_weights(machine: Machine) -> None:
    a, g = case(1, 1, 300, 49, "f4")
    close(machine, "combine", a, g, relu=True)
    assert machine.launched == [("combine_rows_2", (1, 4)), ("finish", (1,))]
    close(machine, "combine_weighted", a[:, :200], g[:, :, :200], relu=True)
    close(machine, "combine_weighted", a, g.mean(axis=3), relu=False)
    close(machine, "combine_weighted", a.astype("f2"), g.mean(axis=3))  # as after pooling


def view(size: tuple[int, int], places: tuple[int, int], part: bool) -> View:
    if not part:
        return View.whole(size, places)
    rows, columns = (
        Axis(n, 0.9 * m / n, 0.3, n // 5, n - n // 7) for n, m in zip(size, places, strict=True)
    )
    return View(rows, columns)


PICTURES = [
    ((7, 7), (40, 224), False),
    ((7, 7), (9, 130), True),  # a last warp with few columns
    ((1, 3), (150, 5), True),  # two bands; many groups of warps
    ((2, 1), (3, 1100), False),  # two stretches of columns
    ((14, 14), (50, 300), True),  # as many warps as do not divide a block's
]


@pytest.mark.parametrize(("places", "size", "part"), PICTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pictures(
    places: tuple[int, int], size: tuple[int, int], part: bool, dtype: str, machine: Machine
) -> None:
    seen, make = view(size, places, part), rng(1)
    raw = make.uniform(-1, 3, (2, *places)).astype(dtype)
    raw[1, 0, 0] = np.nan
    maps = machine.send(raw)
    for normalise in (False, True):
        found = cuda.upsample(maps, seen, normalise=normalise).data
        expected = reference.upsample(raw, seen, normalise=normalise)
        np.testing.assert_allclose(found, expected, atol=3e-5)
        assert not normalise or found.max() <= 1
    for channels in (3, 4) if dtype == "f4" else (5,):
        guided = make.uniform(-1, 1, (2, channels, *size)).astype(dtype)
        found = cuda.fuse(machine.send(guided), maps, seen).data
        np.testing.assert_allclose(found, reference.fuse(guided, raw, seen), atol=3e-5)


@pytest.mark.parametrize(("places", "size", "part"), PICTURES)
def test_paint(
    places: tuple[int, int], size: tuple[int, int], part: bool, machine: Machine
) -> None:
    make, seen = rng(2), view(size, places, part)
    photo = make.integers(0, 256, (*size, 3)).astype("u1")
    table = (make.integers(0, 256, (256, 3)).cumsum(axis=0) // 256).astype("u1")
    for raw in (make.uniform(-1, 1, places).astype("f"), -np.ones(places, "f2")):
        given = machine.send(photo), machine.send(raw), seen, machine.send(table), 0.6, 0.4
        found = cuda.paint(*given).data.astype(int)
        expected = reference.paint(photo, raw, seen, table, 0.6, 0.4)
        assert np.abs(found - expected).max() <= 2
    kernel = "paint_words" if size[1] % 4 == 0 else "paint"
    assert machine.launched[-1][0] == kernel
    # A picture that does not begin at a whole word.
    flat = machine.send(np.concatenate([np.zeros(1, "u1"), photo.ravel()]))
    shifted = Array(photo, flat.address + 1)
    again = cuda.paint(shifted, *given[1:]).data
    assert machine.launched[-1][0] == "paint"
    assert np.abs(again - found).max() <= 1


def test_empty_maps(machine: Machine) -> None:
    none, whole = machine.send(np.zeros((0, 3), "f")), View.whole((9, 20), (0, 3))
    assert not cuda.upsample(none, whole).data.any()
    photo, table = np.full((9, 20, 3), 200, "u1"), np.zeros((256, 3), "u1")
    painted = cuda.paint(machine.send(photo), none, whole, machine.send(table), 0.5, 0.5).data
    assert (painted == 100).all()


def test_no_thread_does_the_work_of_many(machine: Machine) -> None:
    """Partial sums are added up as trees: one thread that adds 255 takes many times the mean."""
    for places, kernel in ((4096, "pool_rows"), (8192, "pool")):
        close(machine, "combine", *case(1, 1, 8, places, "f4"))
        assert machine.programs[kernel].uneven < 2


def ends(grid: tuple[int, ...]) -> list[int]:
    count = int(np.prod(grid, dtype=object))
    return sorted({0, count // 2, count - 1})


def huge(machine: Machine, shape: tuple[int, ...], dtype: str) -> Array:
    """An array of zeros that takes memory only where it is touched."""
    flat = np.zeros(int(np.prod(shape, dtype=object)), dtype)
    machine.memory.arrays.append(flat.view(np.uint8))
    machine.memory.known.append(None)
    machine.memory.written.append(np.zeros(0, bool))
    return Array(flat.reshape(shape), len(machine.memory.arrays) << 40)


@pytest.mark.parametrize(
    "shape", [(4096, 1, 1024, 31, 31), (1600, 1, 2048, 28, 28), (2, 1, 8, 4096, 4096)]
)
def test_indices_of_more_than_31_bits(shape: tuple[int, ...], machine: Machine) -> None:
    """First, middle and last blocks of maps of up to 2.6 thousand million elements."""
    n, t, k, *space = shape
    machine.blocks = ends
    a, g = huge(machine, (n, k, *space), "f2"), huge(machine, shape, "f2")
    a.data.reshape(-1)[-1], g.data.reshape(-1)[-1] = 3, 4
    found = cuda.combine_weighted(a, g)
    assert found.data.reshape(-1)[-1] == 12
    assert all(max(grid[1:], default=1) < 65536 for _, grid in machine.launched)


def test_a_grown_buffer_is_not_freed(machine: Machine) -> None:
    """A captured graph goes on writing to the address that it knows."""
    first = cuda_arrays.scratch("partial", 100, 0)
    assert cuda_arrays.scratch("partial", 60, 0) is first
    larger = cuda_arrays.scratch("partial", 101, 0)
    assert larger is not first and larger.size >= 200, "doubled, so that few are kept"
    kept = cuda_arrays._kept.buffers["partial", 0]
    assert [b.address for b in kept] == [first.address, larger.address]
    assert cuda_arrays.scratch("partial", 101, 7) is not larger, "another stream's"


def test_the_largest_value_is_waited_for(machine: Machine) -> None:
    class Stream:
        waited = 0

        def __int__(self) -> int:
            return 7

        def synchronize(self) -> None:
            self.waited += 1

    raw, seen, stream = (
        rng().uniform(0, 1, (3, 4)).astype("f"),
        View.whole((9, 9), (3, 4)),
        Stream(),
    )
    found = cuda.upsampled_max(machine.send(raw), seen, stream=stream)
    assert abs(found - reference.upsampled_max(raw, seen)) < 1e-6
    assert stream.waited == 1, "Numba only queues the copy"


@pytest.mark.parametrize(
    ("kernel", "values", "most", "flight"),
    [
        ("upsample", 224 * 224, 18, 4),
        ("fuse", 3 * 224 * 224, 18, 12),
        ("paint_words", 3 * 224 * 224, 31, 3),
        ("combine_rows_2", 1024 * 49, 21, 32),
        ("weigh", 64 * 3136, 13, 16),
        ("pool_rows", 64 * 3136, 6, 8),
    ],
)
def test_what_a_value_costs(
    kernel: str,
    values: int,
    most: float,
    flight: int,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Instructions for each value made or summed, so that memory sets the pace, and not they.

    An H100 runs 28 instructions in the time that it moves 4 bytes.
    """
    monkeypatch.setattr(cuda_arrays, "processors", lambda: 1)  # as where all are busy
    cuda._shares.cache_clear()
    seen, flat = View.whole((224, 224), (7, 7)), machine.send(np.ones((7, 7), "f"))
    photo, table = np.ones((224, 224, 3), "u1"), np.ones((256, 3), "u1")
    runs = {
        "upsample": lambda: cuda.upsample(flat, seen),
        "fuse": lambda: cuda.fuse(machine.send(np.ones((3, 224, 224), "f")), flat, seen),
        "paint_words": lambda: cuda.paint(
            machine.send(photo), flat, seen, machine.send(table), 0.5, 0.5
        ),
        "combine_rows_2": lambda: cuda.combine(*map(machine.send, case(1, 1, 1024, 49, "f4"))),
        "weigh": lambda: cuda.combine(*map(machine.send, case(1, 1, 64, 3136, "f4"))),
    }
    runs["pool_rows"] = runs["weigh"]
    runs[kernel]()
    program = machine.programs[kernel]
    assert program.counts["instructions"] / values < most
    assert program.flight >= flight
