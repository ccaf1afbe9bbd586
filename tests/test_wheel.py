"""The wheel, installed and used outside the checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from plugins_for_tests import Place

ROOT = Path(__file__).parent.parent


def carry_out(*words: str | Path, place: Place) -> str:
    """Run a command in `place`; what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=place.folder,
        env=place.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(place: Place) -> Path:
    """Build a copy of the checkout, so that nothing is left behind in the checkout itself."""
    source = place.folder / "source"
    leave = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "trials")
    shutil.copytree(ROOT, source, ignore=leave)
    dist = place.folder / "dist"
    # The package's own requirements bring a setuptools that is new enough (torch asks for it).
    words = ("-m", "build", "--wheel", "--no-isolation", "--outdir", dist, source)
    carry_out(sys.executable, *words, place=place)
    (wheel,) = dist.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> None:
    """Every module and table of the two packages is in it, and no other package."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bench", "methods"}
    folders = (ROOT / "bench", ROOT / "methods")
    files = [
        f
        for folder in folders
        for ending in ("py", "csv", "html", "css", "js", "typed")
        for f in folder.rglob(f"*.{ending}")
    ]
    assert {file.relative_to(ROOT).as_posix() for file in files} <= names


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    with Place(tmp_path) as place:
        wheel = build_wheel(place)
        check_content(wheel)
        site = tmp_path / "site"
        options = ("--no-deps", "--no-index", "--target", site)
        carry_out(sys.executable, "-m", "pip", "install", *options, wheel, place=place)
        shutil.rmtree(tmp_path / "source")
        place.environment["PYTHONPATH"] = str(site)  # comes before an installation of the checkout
        listed = json.loads(carry_out(site / "bin" / "bench", "list", "--json", place=place))
        assert listed, "the wheel brings methods"
        for method in listed:
            assert Path(method["source"]).is_relative_to(site), method["source"]
        ended = place.run("--method near --level 5%", "simple")
        assert ended.status == 0, ended.text
        (record,) = place.records().values()
        assert record["status"] == "ok"
        assert record["environment"]["commit"] is None, "an installed wheel is no checkout"
