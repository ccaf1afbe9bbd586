"""Made-up boards, all figures of them, and what is read from an SVG."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from bench.records import published
from bench.records.findings import Finding
from bench.records.published import Figure, Setting
from bench.show import charts, costs, heatmaps, histories, style, verdicts
from bench.show.svg import SPACE, About

NAMES = [f"method-{i:02}" for i in range(28)]
ODD = [
    "$1_$2",
    "<b>&amp;</b> \"x\" 'y'",
    "[red]x[/red]",
    "ひらがな たんご",
    "kmeans-centroid k=500 max_clusters=2000 train_on=centres vote=nearest",
    "x" * 60,
    "a\x00b\nc\ud800",
]
LEVELS = {"0%": 0, "10": 10, "500": 500, "1%": 700, "10%": 7000}
SHARES = ["0%", "1%", "10%"]
ABOUT = About("figure", "A figure", "It says <this> & that.")


def board(names: list[str] = NAMES, levels: tuple[str, ...] = tuple(LEVELS)) -> pd.DataFrame:
    """A board; the last method has no headline at level 0, the first an interval everywhere."""
    rows = []
    for i, name in enumerate(names):
        for j, level in enumerate(levels):
            mean = 0.3 + 0.01 * i + 0.04 * j
            mean = np.nan if i == len(names) - 1 and level == "0%" else mean
            half = 0.03 if i == 0 else np.nan
            rows.append(
                {
                    "name": name,
                    "method": name.split(" ")[0],
                    "level": level,
                    "n_labels": LEVELS[level],
                    "n_seeds": 3,
                    "headline_mean": mean,
                    "headline_low": mean - half,
                    "headline_high": mean + half,
                    "gain_mean": mean - 0.5,
                    "gain_low": mean - 0.5 - half,
                    "gain_high": mean - 0.5 + half,
                    "acc_all_mean": mean,
                    "acc_all_std": 0.01,
                    "nmi_all_mean": mean - 0.1,
                    "nmi_all_std": np.nan,
                    "fit_seconds_median": 0.0 if i == 0 else 10.0**i / 1e6,
                    "stage_seconds_median": np.nan if i == 1 else 5.0,
                    "peak_memory_mib": np.nan if i == 2 else 500.0 + i,
                    "device": "cuda" if i == 3 else "cpu",
                }
            )
    return pd.DataFrame(rows)


def finding(value: float, *measured: float, method: str = "ss-dcec", source: str = "s") -> Finding:
    setting = Setting(method, "transductive", "random", "1%", "all", "acc")
    return Finding(Figure(1, source, value, setting, selection_rule="label-free"), measured)


HISTORY = [
    *({"stage": "autoencoder", "epoch": i, "loss": 1 / i} for i in (1, 2, 3)),
    {"iteration": 0, "clustering_loss": None, "changed": None, "clusters_in_use": 10},
    {"iteration": 140, "clustering_loss": 0.5, "changed": 0.2, "clusters_in_use": 9},
    {"iteration": 280, "clustering_loss": 0.4, "changed": 0.1, "clusters_in_use": 10},
    {"graph_edges": 7},
]
LATER = [dict(row, clustering_loss=2.0) if "iteration" in row else row for row in HISTORY]
TABLE = [[8, 2, 0], [1, 1, 0]]
TABLE_1 = [one for one in published.figures() if one.source.startswith("ss-dcec-paper")]


def drawings(names: list[str] = NAMES, about: About = ABOUT) -> dict[str, Callable[[], str]]:
    """Every figure of these methods."""
    rows, look = board(names), style.styles(names)
    shares, one = rows[rows["level"].isin(SHARES)], look[names[0]]
    recalls = pd.DataFrame({"a": np.linspace(0, 1, len(names)), "b": np.nan}, names)
    history = {"0%": HISTORY, "10%": LATER}
    found = [finding(0.7, 0.69, 0.71, method=name, source=name) for name in names]
    return {
        "supervision": lambda: charts.supervision(shares, names, look, "x", about, TABLE_1[2:3]),
        "to scale": lambda: charts.supervision_to_scale(rows, names, look, "x", about),
        "gains": lambda: charts.gains(rows, names, look, about),
        "replication": lambda: charts.replication(shares, names, look, about, TABLE_1),
        "seconds": lambda: costs.costs(rows, "10%", names, look, "x", about),
        "memory": lambda: costs.costs(rows, "10%", names, look, "x", about, "memory"),
        "recalls": lambda: heatmaps.recalls(recalls, about),
        "confusion": lambda: heatmaps.confusion(TABLE, names[:2], about),
        "histories": lambda: histories.histories(history, one, about) or "",
        "verdicts": lambda: verdicts.verdicts(found, about),
    }


FIGURES = list(drawings())


def elements(text: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text).iter(f"{{{SPACE}}}{tag}"))


def texts(text: str) -> list[str]:
    return [one.text or "" for one in elements(text, "text")]


def series(text: str, name: str, tag: str) -> list[ElementTree.Element]:
    groups = [g for g in elements(text, "g") if g.get("data-series") == name]
    return [one for group in groups for one in group.iter(f"{{{SPACE}}}{tag}")]


def rules(text: str) -> dict[str, str]:
    """The declarations of each class."""
    return dict(re.findall(r"\.(\w+){([^}]*)}", text))


def declared(one: ElementTree.Element, text: str) -> str:
    known = rules(text)
    return ";".join(known[name] for name in one.get("class", "").split())


def heights(text: str) -> Callable[[float], float]:
    """From units to values: the horizontal lines of the grid and the texts of their ticks."""
    found = [one for one in elements(text, "path") if "var(--grid)" in declared(one, text)]
    ends = [re.findall(r"[ML]([\d.]+) ([\d.]+)", one.get("d", "")) for one in found]
    places = sorted({float(y) for (_, y), (_, other) in ends if y == other}, reverse=True)
    ticks = [one for one in texts(text) if re.fullmatch(r"−?0\.\d\d", one)]
    values = [float(one.replace("−", "-")) for one in ticks]
    slope, start = np.polyfit(places, sorted(values), 1)
    return lambda place: slope * place + start


def points(text: str, name: str) -> np.ndarray:
    """``(n, 2)`` of the line of a method: the places of its markers."""
    uses = series(text, name, "use")
    return np.array([[float(one.get("x", 0)), float(one.get("y", 0))] for one in uses])
