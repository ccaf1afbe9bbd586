"""A user's images as files: one folder for each class, perhaps below train/ and test/."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.core.errors import BenchError
from bench.data.content import Own, check_size, listed, require

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = re.compile(r"\.(bmp|gif|jpe?g|p[bgnp]m|png|tiff?|webp)", re.IGNORECASE)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
GREY = ("1", "L", "LA")
TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation")
TEST = ("test", "testing")
CURE = "Move some of its images into train/."  # for a class of the test part alone
LAYOUT = "expected a folder for each class, with its images, or train/ and test/ with these"


@dataclass(frozen=True)
class _Files:
    """The files of all images: the training part first, each part class by class."""

    paths: list[Path]
    classes: list[int]
    names: list[str]
    n_train: int
    left_out: list[Path]


@dataclass(frozen=True)
class _Form:
    """What all images have in common: pixels, and whether they are in colour."""

    height: int
    width: int
    colour: bool

    def shape(self, n: int) -> tuple[int, ...]:
        return (n, self.height, self.width, 3)[: 4 if self.colour else 3]


def read(folder: Path) -> Own:
    """All images below `folder`, in the order of their parts, classes and names.

    Images are grey if all are, else in colour; what is transparent is laid on white, and said.

    Raises
    ------
    BenchError : there are no classes, an image cannot be read, or differs in size from the first.
    """
    files = _find(folder)
    require(bool(files.paths), f"{folder} holds no images in folders{_held(files)}; {LAYOUT}.")
    require(
        len(files.names) > 1,
        f"{folder} has one class, the folder {files.names[0]!r}; {LAYOUT}. If the classes lie in "
        "there, name that folder.",
    )
    form = _form(files.paths)
    shape = form.shape(len(files.paths))
    check_size(folder, int(np.prod(shape, dtype=object)))
    X = np.empty(shape, np.uint8)
    seen_through = 0
    for i, path in enumerate(files.paths):
        with _opened(path) as image:
            seen_through += _read_into(X[i], image)
    said = []
    if files.left_out:
        said.append(
            f"{folder}: left out {len(files.left_out):,} files that are no images by their ending "
            f"or lie in no class, the first is {files.left_out[0].relative_to(folder)}"
        )
    if seen_through:
        said.append(
            f"{folder}: {seen_through:,} images are partly transparent and were laid on white; "
            "save them without transparency if that is not meant"
        )
    return Own(
        folder,
        X,
        np.array(files.classes),
        np.array(files.n_train),
        np.array(files.names),
        tuple(said),
        CURE,
    )


def _held(files: _Files) -> str:
    """What files there are instead of images in folders, for a sentence; nothing if none."""
    found = sorted({path.suffix.lower() or path.name for path in files.left_out})
    if not found:
        return ""
    return f", only {listed(found, 5)} (read are bmp, gif, jpg, png, ppm, tiff and webp)"


def fingerprint(folder: Path) -> str:
    """SHA-256 of the place, names, sizes and times of all files that `read` looks at.

    What an archive or ``cp -p`` has written may have the time of another file; when the file itself
    was changed, and which one it is, the system says.
    """
    files = _find(folder)
    digest = hashlib.sha256(repr(str(folder.resolve())).encode())
    for path in (*files.paths, *files.left_out):
        status = path.stat(follow_symlinks=path.exists())
        times = status.st_mtime_ns, status.st_ctime_ns
        seen = (str(path.relative_to(folder)), status.st_size, status.st_ino, *times)
        digest.update(repr(seen).encode())
    return digest.hexdigest()


def _find(folder: Path) -> _Files:
    """The files of all images; those that are none, or lie beside the classes, are left out."""
    parts = _parts(folder)
    names = sorted({one.name for part in parts for one in _folders(part)})
    paths: list[Path] = []
    classes: list[int] = []
    sizes = []
    for part in parts:
        before = len(paths)
        for one in _folders(part):
            images = [path for path in _files(one) if ENDINGS.fullmatch(path.suffix)]
            paths += images
            classes += [names.index(one.name)] * len(images)
        sizes.append(len(paths) - before)
    empty = sorted(set(range(len(names))) - set(classes))
    require(
        not empty or not paths,
        f"{folder}: the folder of class {names[empty[0]] if empty else ''} holds no image; fill it "
        "or take it away.",
    )
    taken = set(paths)
    left_out = [path for path in _files(folder) if path not in taken]
    n_train = sum(sizes[: max(1, len(sizes) - 1)])
    return _Files(paths, classes, names, n_train, left_out)


def _parts(folder: Path) -> list[Path]:
    """The folders of the training, validation and test part; the folder itself if it has none.

    Without a test part the validation part is it, where both hold folders and are alone: else
    these are names of classes.
    """
    tops = {path.name.lower(): path for path in _folders(folder)}
    training, validation, test = (
        [tops[name] for name in names if name in tops] for names in (TRAINING, VALIDATION, TEST)
    )
    parts = [*training, *validation, *test]
    alone = len(parts) == len(tops) > 1 and all(map(_folders, parts))
    return parts if training and (test or alone) else [folder]


def _folders(folder: Path) -> list[Path]:
    """The folders in `folder`, by name; hidden ones are not looked at."""
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir() and one.name[0] != ".")
    except OSError as error:
        raise BenchError(f"{folder} cannot be read: {error.strerror or error}") from error


def _files(folder: Path) -> list[Path]:
    """The files below `folder`, in order; links to folders and what is hidden are not followed."""

    def refuse(error: OSError) -> None:
        raise BenchError(f"{error.filename} cannot be read: {error.strerror}") from error

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in sorted(names) if not name.startswith(".")]
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """An image whose pixels have not been read yet.

    Raises
    ------
    BenchError : it cannot be read, then or in the block; the message names the file.
    """
    import PIL.Image

    require(path.is_file(), f"{path} cannot be read: it is no regular file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=FORMATS) as image:
                yield image
    except BenchError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise BenchError(f"{path} is damaged or no image; mend it or take it away.") from error
    except Exception as error:  # every format fails in its own ways
        raise BenchError(f"{path} cannot be read: {error}; mend it or take it away.") from error


def _form(paths: list[Path]) -> _Form:
    """What all images have in common, from their headers.

    Raises
    ------
    BenchError : the first image that differs in size, has more than 8 bits per pixel, or moves.
    """
    sizes: list[tuple[int, int]] = []
    colour = False
    for path in paths:
        with _opened(path) as image:
            require(
                image.mode[0] not in "IF",
                f"{path} has more than 8 bits for a pixel; expected 0 to 255: convert all images "
                "alike, or save them as X in an .npz file.",
            )
            # MPO: a photo with its preview
            moves = getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
            require(not moves, f"{path} has several frames; expected one image in each file.")
            sizes.append(image.size)
            colour |= image.mode not in GREY
        require(
            sizes[-1] == sizes[0],
            f"{path} has {_times(sizes[-1])} pixels, and {paths[0]} has {_times(sizes[0])}; "
            "expected images of one size: resize or crop them.",
        )
    return _Form(sizes[0][1], sizes[0][0], colour)


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _read_into(row: np.ndarray, image: Image) -> bool:
    """Write the pixels of an image into `row`; whether some were transparent."""
    import PIL.Image

    seen_through = False
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        seen_through = bool(np.asarray(layer)[..., 3].min() < 255)
        white = PIL.Image.new("RGBA", layer.size, "white")
        image = PIL.Image.alpha_composite(white, layer)
    row[...] = np.asarray(image.convert("RGB" if row.ndim == 3 else "L"))
    return seen_through
