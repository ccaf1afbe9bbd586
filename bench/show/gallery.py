"""The figures of the page: which are drawn, of what, and what stands below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

import pandas as pd

from bench.core.trial import Trial
from bench.data.datasets import Dataset
from bench.records import published
from bench.records.findings import Finding
from bench.records.published import Figure as PublishedFigure
from bench.records.scoring import Record
from bench.records.views import Images, View
from bench.show import charts, costs, figures, heatmaps, histories, labels, lines, verdicts
from bench.show.charts import spaced
from bench.show.confusion import Table, headline_subset, name_of
from bench.show.picture import Picture, drawn, slug
from bench.show.sections import Section, headline_images
from bench.show.style import Style

Look = Mapping[str, Style]
UNRANKED = "Variants, which are not ranked, are left out."


def of_board(
    section: Section, look: Look, images: Images, tables: Mapping[str, Mapping[str, Table]]
) -> list[Picture]:
    """The figures of a board; none where it has no headline.

    Parameters
    ----------
    look : how each name is drawn.
    tables : the confusion matrices of the board, by name and level.
    """
    if section.good.empty:
        return []
    found: list[Picture | None] = [
        *_curves(section, look),
        *_replications(section, look),
        *_costs(section, look),
        recall(section, images),
        _confusion(section, images, tables),
    ]
    return [picture for picture in found if picture is not None]


def main_figure(key: Sequence[str], sections: Sequence[Section], look: Look) -> Picture | None:
    """The headline against the number of labels, all levels of a setting; None of one level."""
    here = [section for section in sections if section.key[:4] == tuple(key[:4])]
    rows = pd.concat([section.rows for section in here])
    good = rows[rows["rank"].notna()]
    if good["level"].nunique() < 2:
        return None
    order = list(dict.fromkeys(name for section in here for name in section.order))
    what = headline_images(key[1])
    return drawn(
        f"labels-{slug('-'.join(key[:4]))}",
        "Headline against the number of labels",
        _said(here[0]),
        f"The headline (on {what}) against the number of labels, to scale. Without labels it is "
        f"ACC. {_intervals(good)} {UNRANKED}",
        lambda about: charts.supervision_to_scale(good, order, look, what, about),
    )


def curve(name: str, anchor: str, rows: pd.DataFrame, look: Look) -> Picture | None:
    """One method beside the supervised one that it is compared with; None of one level.

    Parameters
    ----------
    rows : of one setting, all its methods and levels.
    """
    good = rows[rows["headline_mean"].notna()]
    own = good[good["name"] == name]
    if own["level"].nunique() < 2:
        return None
    known = own["gain_baseline"].dropna()
    order = list(dict.fromkeys([name, *([known.mode().iloc[0]] if len(known) else [])]))
    what = headline_images(str(own["protocol"].iloc[0]))
    shown = good[good["name"].isin(order)]
    scores = ", ".join(
        f"{spaced(row['level'])} {row['headline_mean']:.3f}" for _, row in own.iterrows()
    )
    return drawn(
        f"curve-{anchor}",
        f"{name} against the number of labels",
        f"{name}: {scores}.",
        f"The headline (on {what}) against the number of labels, beside the best method that is "
        f"supervised alone. {_intervals(shown)}",
        lambda about: charts.supervision_to_scale(shown, order, look, what, about),
    )


def _curves(section: Section, look: Look) -> list[Picture]:
    """The headline against supervision, and what is gained over supervised methods."""
    good, order = section.good, section.order
    if good["level"].nunique() < 2:
        return []
    ranked = good[good["rank"].notna()]
    shown = ranked if ranked["level"].nunique() > 1 else good
    unranked = f" {UNRANKED}" if len(shown) < len(good) else ""
    what = headline_images(section.key[1])
    curves = published_curves(section.key, ("acc", "accuracy"))
    sources = " Dashed: what the sources publish." if curves else ""
    found = [
        drawn(
            f"supervision-{section.anchor}",
            f"Headline against supervision, {section.board.title}",
            _said(section),
            f"The headline (on {what}) against supervision; level 0 stands apart, its headline is "
            f"ACC. {_intervals(shown)}{unranked}{sources}",
            lambda about: charts.supervision(shown, order, look, what, about, curves),
        )
    ]
    if shown["gain_mean"].notna().any():
        found.append(
            drawn(
                f"gain-{section.anchor}",
                f"Gain over supervised methods, {section.board.title}",
                _said(section, "gain_mean", "gain", "+"),
                "What each method gains over the best supervised method with the same labels, "
                f"paired by seed. {_intervals(shown)}{unranked}",
                lambda about: charts.gains(shown, order, look, about),
            )
        )
    return found


def _intervals(rows: pd.DataFrame) -> str:
    """What is said of the intervals of a figure with a line for each name."""
    whose = "" if rows["name"].nunique() <= lines.MANY else " of the best of each family (thick)"
    return f"Bands and bars are 95 % intervals over seeds{whose}, where there are several."


def _said(section: Section, column: str = "headline_mean", what: str = "", sign: str = "") -> str:
    """A column at the level at which methods are compared, for who does not see a figure."""
    at = section.good[section.good["level"] == section.level].dropna(subset=[column])
    best_first = at.sort_values([column, "name"], ascending=[False, True])
    scores = [f"{row['name']} {row[column]:{sign}.3f}" for _, row in best_first.iterrows()]
    return f"{what} At {spaced(section.level)}, best first: {', '.join(scores)}.".strip()


def published_curves(key: Sequence[str], metrics: Sequence[str]) -> list[PublishedFigure]:
    """The published figures that are curves on this board: one value at each of several levels."""
    by_curve: dict[tuple[str, ...], list[PublishedFigure]] = {}
    for figure in published.figures():
        at = figure.setting
        here = (at.dataset, at.protocol, at.selection, at.schedule) == tuple(key[:4])
        if here and at.metric in metrics and not figure.other_reading:
            by_curve.setdefault((figure.source, at.metric, at.subset), []).append(figure)
    return [
        figure
        for of_it in by_curve.values()
        if 2 < len(of_it) == len({figure.setting.level for figure in of_it})
        for figure in of_it
    ]


def _replications(section: Section, look: Look) -> list[Picture]:
    """Where a source publishes ACC and NMI on all images as curves: these beside ours."""
    curves = published_curves(section.key, ("acc", "nmi"))
    curves = [figure for figure in curves if figure.setting.subset == "all"]
    found = []
    for source in dict.fromkeys(figure.source for figure in curves):
        theirs = [figure for figure in curves if figure.source == source]
        methods = {figure.setting.method for figure in theirs}
        rows = section.rows[section.rows["name"].isin(methods)]
        order = [name for name in section.order if name in methods]
        if rows["level"].nunique() > 1 and {f.setting.metric for f in theirs} == {"acc", "nmi"}:
            found.append(_replication(section, source, theirs, rows, order, look))
    return found


def _replication(
    section: Section,
    source: str,
    theirs: Sequence[PublishedFigure],
    rows: pd.DataFrame,
    order: Sequence[str],
    look: Look,
) -> Picture:
    of_acc = [figure for figure in theirs if figure.setting.metric == "acc"]
    said = ", ".join(f"{spaced(f.setting.level)} {f.value:.3f}" for f in of_acc)
    return drawn(
        f"replication-{slug(source)}-{section.anchor}",
        f"{source} beside our records",
        f"Published ACC: {said}. Ours stands in the table of published figures.",
        f"ACC and NMI on all images, labelled ones included: as {source} has them (dashed), and as "
        f"our records do. {_intervals(rows)}",
        lambda about: charts.replication(rows, order, look, about, theirs),
    )


def _costs(section: Section, look: Look) -> list[Picture]:
    """What the headline costs in seconds and in memory, with the Pareto fronts."""
    good, level, order = section.good, section.level, section.order
    what, at = headline_images(section.key[1]), spaced(section.level)
    seconds = drawn(
        f"cost-{section.anchor}",
        f"Headline against seconds, {section.board.title}",
        _said(section),
        f"What the headline at {at} costs: seconds of the fit alone (hollow) and with its shared "
        "stages, which several trials use but compute once (filled). On the lines are the methods "
        "that none beats in both; those of GPUs, ringed, are not comparable with the others.",
        lambda about: costs.costs(good, level, order, look, what, about),
    )
    if not (good.loc[good["level"] == level, "peak_memory_mib"] > 0).any():
        return [seconds]
    memory = drawn(
        f"memory-{section.anchor}",
        f"Headline against peak memory, {section.board.title}",
        _said(section),
        f"The headline at {at} against the largest memory of the process that fitted. On the lines "
        "are the methods that none beats in both; on a GPU its own memory comes on top.",
        lambda about: costs.costs(good, level, order, look, what, about, "memory"),
    )
    return [seconds, memory]


def recall(section: Section, images: Images) -> Picture | None:
    """The recall of every class; None where no record has it."""
    table = recall_table(section.records, section.level, section.order)
    if table.empty:
        return None
    table.columns = pd.Index(images.class_names(section.key[0], table.shape[1]))
    at, what = spaced(section.level), headline_images(section.key[1])
    remark = labels.axis_remark(list(table.columns))
    lowest = f"On average {table.mean().idxmin()} is lowest."
    return drawn(
        f"recall-{section.anchor}",
        f"Recall of every class, {section.board.title}",
        f"Heat map of recall, methods by classes. {lowest}",
        f"Recall of every class at {at}, on {what}, mean over seeds. {lowest} {remark}".strip(),
        lambda about: heatmaps.recalls(table, about),
    )


def recall_table(records: Iterable[Record], level: str, order: Sequence[str]) -> pd.DataFrame:
    """Recall ``(methods, classes)`` at a level, on the headline's images, mean over seeds.

    Rows are in this order, as far as there is a record with recall; columns are classes. Empty
    where there is none.
    """
    found: dict[str, list[list[float | None]]] = {}
    for record in records:
        trial = Trial.from_json(record["trial"])
        subset = headline_subset(trial.protocol)
        if record["status"] == "ok" and trial.level == level and subset in record["subsets"]:
            recall = record["subsets"][subset]["recall"]
            found.setdefault(name_of(trial), []).append(recall)
    means = {n: pd.DataFrame(found[n], dtype=float).mean() for n in order if n in found}
    return pd.DataFrame(means).T


def _confusion(
    section: Section, images: Images, tables: Mapping[str, Mapping[str, Table]]
) -> Picture | None:
    """Which classes the best method of a board takes for which; None where no table is kept."""
    at = section.good[(section.good["level"] == section.level) & section.good["rank"].notna()]
    best = at.sort_values(["rank", "name"])["name"]
    if len(best) < 2 or section.level not in tables.get(best.iloc[0], {}):
        return None
    name, table = best.iloc[0], tables[best.iloc[0]][section.level]
    classes = images.class_names(section.key[0], len(table))
    return drawn(
        f"confusion-{section.anchor}",
        f"Confusion matrix of {name}, {section.board.title}",
        f"Which classes {name} takes for which at {spaced(section.level)}.",
        f"Which classes {name}, the best at {spaced(section.level)}, takes for which: of every "
        "true class (rows) the percentage called each class, all seeds together. The cards have "
        "those of every method and level.",
        lambda about: heatmaps.confusion(table, classes, about),
    )


def training(name: str, anchor: str, records: Iterable[Record], style: Style) -> Picture | None:
    """The training of one method at several levels; None where no history has steps.

    Parameters
    ----------
    records : of one method on one board.
    """
    found = {
        record["trial"]["level"]: record["history"]
        for record in sorted(records, key=lambda record: -record["trial"]["seed"])
        if record["status"] == "ok" and record["history"] and not record.get("same_as")
    }
    shown = {level: found[level] for level in histories.shown_levels(found)}
    if not histories.panels(shown):
        return None
    levels = ", ".join(map(spaced, shown))
    return drawn(
        f"history-{anchor}",
        f"Training of {name}",
        f"Curves over the steps of a fit, at {levels} labels.",
        f"What a fit of the first seed went through, at {levels} labels.",
        lambda about: histories.histories(shown, style, about) or "",
    )


def verdict_chart(found: Sequence[Finding]) -> Picture | None:
    """The published figures that were measured; None without any."""
    measured = [finding for finding in found if finding.mean is not None]
    if not measured:
        return None
    return drawn(
        "published",
        "Published against measured",
        f"{len(measured)} published figures; the table below has the numbers.",
        "How far the mean that was measured is from each published figure, with its 95 % interval "
        "over seeds. Last column: by which rule the source chose the state that it published.",
        lambda about: verdicts.verdicts(measured, about),
    )


def clusters(trial: Trial, view: View, data: Dataset, anchor: str) -> Picture:
    """The surest images of every cluster of a fit, and the surest of those that are wrong in it."""
    wrong = any(one.wrong for one in view.clusters)
    right = " On the right the surest of other classes than the cluster's label." if wrong else ""
    named = labels.class_texts(view.classes)[1]
    return Picture(
        f"clusters-{anchor}-{trial.folder.name}.png",
        f"{name_of(trial)} at {spaced(trial.level)}: of every cluster the images that are most "
        f"confidently in it, the surest first.{right} {named}".strip(),
        f"Images of {len(view.clusters)} clusters, a row for each, labelled with its majority.",
        figures.confident_images(view, data.X),
    )


def reconstructions(found: Mapping[str, View], trial: Trial, data: Dataset) -> Picture:
    """What the autoencoder of a method makes of some images, at each level of `found`."""
    made = {
        spaced(level): view.reconstructed for level, view in found.items() if view.reconstructed
    }
    first = next(iter(made.values()))
    same = {level: one.X for level, one in made.items() if one.images == first.images}
    where = f"{trial.dataset}-{trial.protocol}-{trial.selection}-{trial.schedule}"
    return Picture(
        f"reconstructed-{slug(where)}-{trial.folder.name}.png",
        f"{name_of(trial)}, {trial.dataset} · {trial.protocol} · {trial.selection} · "
        f"{trial.schedule}: images, evenly spaced ones of the dataset, and what the autoencoder "
        f"makes of their embedding after training with {', '.join(same)} labels.",
        f"A row of {len(first.images)} images, and a row of reconstructions for each level.",
        figures.reconstructions(figures.taken(data.X, first.images), same),
    )


def augmentations(data: Dataset) -> Picture:
    """SimCLR's augmentations on images of a dataset."""
    from methods.toolkit.augment import STRONG, WEAK

    bounds = [
        ", ".join(
            f"{one.name} {getattr(strength, one.name):.3g}"
            for one in fields(strength)
            if getattr(strength, one.name) != one.default
        )
        for strength in (WEAK, STRONG)
    ]
    caption = (
        f"Twelve images of {data.name}, drawn at random; below each a weak view, as self-labelling "
        f"takes its targets from, and three strong ones, as SimCLR learns from. Weak: {bounds[0]}. "
        f"Strong: {bounds[1]}. Area: the least share that a crop keeps; cutout: the largest side "
        "of the box; flip and grey: probabilities."
    )
    alt = f"Contact sheet of {data.name}: rows are the image, a weak view and three strong views."
    png = figures.augmentations(data.X)
    return Picture(f"augmentations-{slug(data.name)}.png", caption, alt, png)
