"""Every reader, given rubbish: what it raises is the documented error in one line, or nothing.

About 5,000 inputs; ``HYPOTHESIS_PROFILE=stress`` makes it 100,000.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from idx_files import NAMES, Tiny
from PIL import Image

from bench.core.errors import BenchError
from bench.core.levels import Level
from bench.core.trial import Trial
from bench.data.datasets import load
from bench.options import parse_changes
from bench.records import projections, published
from bench.records.projections import Projection, Scores
from bench.records.scoring import check_scores
from bench.records.store import Store, file_text, flatten_record, read_record
from bench.records.views import Cluster, View

TIMES = settings().max_examples / 100  # of the profile, 1 or 20
TRIED: Counter[str] = Counter()
pytestmark = pytest.mark.timeout(300 * TIMES)
MakeRecord = Callable[..., dict[str, Any]]


def inputs(n: int) -> Any:
    """So many examples for a test, times what the profile asks for."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=int(n * TIMES), suppress_health_check=slow, database=None)


def documented(what: str, read: Callable[..., Any], *given: Any) -> Any:
    """What `read` returns; None where it raises the documented error, of one line."""
    TRIED[what] += 1
    try:
        return read(*given)
    except BenchError as error:
        said = str(error)
    assert said
    assert "\n" not in said
    return None


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A folder for the files; at the end it is said how many inputs there were."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BENCH_CACHE", str(folder / "cache"))
        yield folder
    said = ", ".join(f"{n:,} {what}" for what, n in TRIED.items())
    plugins = request.config.pluginmanager
    if reporter := plugins.get_plugin("terminalreporter"):
        with plugins.get_plugin("capturemanager").global_and_fixture_disabled():
            reporter.write_line(f"\nfuzz: {sum(TRIED.values()):,} inputs: {said}")


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with some bytes changed, put in or taken out, perhaps cut short."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 2, 99, 10**30, "", "ok", "5%", "a/b", "transductive"]),
    st.floats(),
    st.text(st.characters(), max_size=5),
)
FLAT = (
    SIMPLE | st.lists(SIMPLE, max_size=2) | st.dictionaries(st.text(max_size=2), SIMPLE, max_size=2)
)
JSON = FLAT | st.lists(FLAT, max_size=2)


def places_in(value: Any) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[Any, ...]] = []
    for key, inner in items:
        found.append((key,))
        if isinstance(inner, dict | list):
            found += [(key, *path) for path in places_in(inner)]
    return found


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value of which one to three parts are replaced, taken out or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        paths = places_in(value)
        path = draw(st.sampled_from(paths)) if paths else ()
        if not path:
            return draw(JSON)
        *outer, last = path
        around = value
        for key in outer:
            around = around[key]
        if draw(st.integers(0, 3)):
            around[last] = draw(JSON)
        else:
            del around[last]
    return value


# --- Words on the command line -------------------------------------------------------------------

AMOUNTS = st.text("0123456789.%e-+_ ١", max_size=8) | st.text(max_size=9)


@inputs(1000)
@given(AMOUNTS | AMOUNTS.map(lambda text: f"{text}%"), st.integers(-1, 10**6))
def test_levels(place: Path, text: str, n: int) -> None:
    level = documented("levels", Level.parse, text)
    if level is not None:
        assert Level.parse(str(level)) == level
        documented("levels", level.n_labels, n)


LITERALS = JSON.map(repr) | st.text("[](){},:'\"019ej\\.-+x=", max_size=12) | st.text(max_size=9)
DEEP = st.sampled_from(["[", "(", "{1:", "-", "not ", "1+", "~"]).map(lambda text: text * 20_000)


@inputs(900)
@given(st.text() | st.builds("{}.{}={}".format, st.text(max_size=3), st.text(max_size=3), LITERALS))
def test_changes(place: Path, text: str) -> None:
    documented("changes", parse_changes, [text])


@inputs(20)
@given(DEEP, st.sampled_from(["", "1"]))
def test_deeply_nested_changes(place: Path, deep: str, end: str) -> None:
    documented("changes", parse_changes, [f"m.p={deep}{end}"])


# --- Images --------------------------------------------------------------------------------------


def check_loaded(path: Path, what: str) -> None:
    """What is taken is as `Dataset` describes it."""
    data = documented(what, load, str(path))
    if data is not None:
        assert data.X.dtype == np.uint8
        assert data.X.ndim in (3, 4)
        assert len(data.X) == len(data.y)
        assert set(data.y.tolist()) == set(range(data.n_classes))
        assert set(data.y[: data.n_train].tolist()) == set(range(data.n_classes))
        "".join((data.name, *data.class_names)).encode()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


IMAGES = np.arange(48, dtype=np.uint8).reshape(6, 2, 4)
GOOD = {"X": IMAGES, "y": np.arange(6) % 2, "n_train": 4, "class_names": ["a", "b"]}
SHAPES = st.sampled_from(
    [(), (0,), (2,), (6,), (6, 1), (6, 2), (6, 2, 4), (6, 3, 5, 5), (6, 2, 2, 3)]
)
TYPES = st.sampled_from(["u1", "i1", ">i8", "u8", "f2", "f8", "c8", "?", "U3", "S3", "M8[s]", "O"])
FILLS = st.sampled_from([0, 1, -1, 255, 256, np.nan, np.inf, "x", "\ud800"])


def filled(kind: str, shape: tuple[int, ...], fill: Any, steps: bool) -> np.ndarray:
    """An array of one value, or with one that rises along the first axis; zeros if it cannot be."""
    array = np.zeros(shape, kind)
    try:
        array[...] = fill
        if steps and shape:
            array.T[...] = np.arange(shape[0])
    except (ValueError, TypeError, OverflowError):
        array[...] = np.zeros((), kind)
    return array


ARRAYS = st.builds(filled, TYPES, SHAPES, FILLS, st.booleans())
LAYOUT = ["X", "y", "n_train", "class_names", "x_train", "y_train", "x_test", "y_test"]


@inputs(350)
@given(damaged(npz(**GOOD)))
def test_damaged_archives(place: Path, content: bytes) -> None:
    (place / "a.npz").write_bytes(content)
    check_loaded(place / "a.npz", "archives")


@inputs(350)
@given(st.dictionaries(st.sampled_from(LAYOUT), ARRAYS, max_size=4), st.sampled_from([{}, GOOD]))
def test_archives_of_any_arrays(place: Path, arrays: dict[str, np.ndarray], good: Any) -> None:
    (place / "a.npz").write_bytes(npz(**good | arrays))
    check_loaded(place / "a.npz", "archives")


HEADER = {"descr": "|u1", "fortran_order": False, "shape": [6, 2, 4]}


@inputs(200)
@given(changed(HEADER).map(repr) | st.text(max_size=40), st.binary(max_size=60))
def test_archives_of_any_header(place: Path, header: str, content: bytes) -> None:
    text = header.replace("[", "(").replace("]", ",)").encode("utf-8", "replace")
    member = b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + content
    with zipfile.ZipFile(place / "a.npz", "w") as archive:
        archive.writestr("X.npy", member)
        archive.writestr("y.npy", member)
    check_loaded(place / "a.npz", "archives")


TINY = Tiny(Path("nowhere"))


@pytest.fixture(scope="module")
def four(place: Path) -> Path:
    return TINY.write(place / "four", gzipped=False)


@inputs(300)
@given(st.sampled_from(NAMES).flatmap(lambda n: st.tuples(st.just(n), damaged(TINY.content[n]))))
def test_idx_files(four: Path, given: tuple[str, bytes]) -> None:
    name, content = given
    (four / name).write_bytes(content)
    check_loaded(four, "idx files")
    (four / name).write_bytes(TINY.content[name])


def image(kind: str, mode: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGES[0]).convert(mode).save(file, kind)
    return file.getvalue()


FILES = [image(*how) for how in (("PNG", "L"), ("PNG", "P"), ("GIF", "L"), ("BMP", "RGB"))]
FILES += [image(*how) for how in (("JPEG", "L"), ("TIFF", "L"), ("PPM", "L"), ("WEBP", "RGB"))]


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    for name in ("a", "b"):
        (place / "images" / name).mkdir(parents=True)
        (place / "images" / name / "0.png").write_bytes(FILES[0])
    return place / "images"


@inputs(300)
@given(st.sampled_from(FILES).flatmap(damaged) | st.binary(max_size=60))
@pytest.mark.filterwarnings("ignore")  # Pillow's, of metadata
def test_images_in_a_folder(folder: Path, content: bytes) -> None:
    (folder / "b" / "1.png").write_bytes(content)
    check_loaded(folder, "images")


# --- Records and figures -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return Store(place / "results")


@pytest.fixture(scope="module")
def record(store: Store, make_true_record: MakeRecord) -> tuple[Path, dict[str, Any]]:
    """A record that is right, and where it lies."""
    return store.write(make_true_record()), make_true_record()


@inputs(400)
@given(st.data())
def test_records(record: tuple[Path, dict[str, Any]], data: st.DataObject) -> None:
    path, good = record
    path.write_text(json.dumps(data.draw(changed(good))))
    found = documented("records", read_record, path)
    if found is not None:
        documented("records", check_scores, found)
        flatten_record(found)
        path.write_text(file_text(found))
        assert read_record(path) == found


@inputs(250)
@given(st.data())
def test_damaged_records(record: tuple[Path, dict[str, Any]], data: st.DataObject) -> None:
    path, good = record
    path.write_bytes(data.draw(damaged(json.dumps(good).encode())))
    documented("records", read_record, path)


VIEW = View("x", ("cat", "dog"), (Cluster(0, 1, 0.5, 2, (3, 0), (0.9, 0.8)),)).to_json()
VIEW = json.loads(json.dumps(VIEW))


@inputs(400)
@given(changed(VIEW) | JSON)
def test_views(place: Path, values: Any) -> None:
    view = documented("views", View.from_json, values)
    if view is not None:
        for one in view.clusters:
            assert view.name(one) in ("", *view.classes)
            assert all(i >= 0 for i in one.images)
            assert f"{one.size} {one.accuracy or 0:.2f}"


@inputs(150)
@given(damaged(json.dumps(VIEW).encode()))
def test_damaged_views(store: Store, make_trial: Callable[[], Trial], content: bytes) -> None:
    path = store.views_path(make_trial())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    documented("views", store.read_views, make_trial())


PROJECTION = Projection.of(
    np.zeros((2, 2)),
    np.arange(2),
    identity="abc",
    sample="0123",
    embedding="4567",
    columns=3,
    made_by={"umap": "0.5", "n_neighbors": 15},
    scores=Scores(0.5, 0.5, 0.5),
    classes=("cat", "dog"),
).to_json()


@inputs(400)
@given(changed(PROJECTION) | JSON)
def test_projections(place: Path, values: Any) -> None:
    found = documented("projection", Projection.from_json, values)
    if found is not None:
        assert found.places.shape == (len(found.y), 2)
        assert all(found.classes[k] is not None for k in found.y)


@inputs(150)
@given(damaged(json.dumps(PROJECTION).encode()))
def test_damaged_projections(store: Store, make_trial: Callable[[], Trial], content: bytes) -> None:
    path = store.projection_path(make_trial())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    documented("projections", projections.read, store, make_trial())


CSV = (Path(published.__file__).parent / "published" / "fashion_mnist.csv").read_bytes()
CSV = b"".join(CSV.splitlines(keepends=True)[:4])
COLUMNS = CSV.splitlines()[0].decode().split(",")
WORDS = [
    "",
    "dcec",
    "0",
    "500",
    "5%",
    "random",
    "all",
    "first n",
    "all 70000",
    "acc",
    "nan",
    "-1",
    "x",
    "last",
]


@inputs(250)
@given(damaged(CSV))
def test_damaged_published_figures(place: Path, content: bytes) -> None:
    (place / "a.csv").write_bytes(content)
    rows = documented("figures", published.read_published, place / "a.csv")
    for row in rows or []:
        assert 0 <= row.value <= 1
        documented("figures", published.settings, row)


@inputs(250)
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=4), min_size=8, max_size=15))
def test_published_figures_of_any_words(place: Path, words: list[str]) -> None:
    text = ",".join(COLUMNS) + "\n" + ",".join(words) + "\n"
    (place / "a.csv").write_text(text, encoding="utf-8", errors="surrogatepass")
    for row in documented("figures", published.read_published, place / "a.csv") or []:
        documented("figures", published.settings, row)
