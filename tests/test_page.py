"""The report in a browser: readable by everybody, sorted, filtered and asked, without a request."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.data import datasets
from bench.records import advice, leaderboard
from bench.records.store import Store, load_results
from bench.records.views import Cluster, View
from bench.show.report import write_report
from methods import registry

Record = dict[str, Any]
NAMES = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "</script><script>document.title = 'broken'</script>$1_$2\"'<b>[x]"
LABELS = {"0%": 0, "1%": 18, "5%": 90, "40": 40, "500": 500}
SCORES = {  # method: accuracy at each of LABELS, seconds of the fit and of the stages, device
    "supervised-lr": ((0.0, 0.61, 0.74, 0.66, 0.93), 1.0, 0.0, "cpu"),
    "ss-dcec": ((0.5, 0.75, 0.8, 0.78, 0.9), 20.0, 10.0, "cpu"),
    "simclr-lr": ((0.0, 0.742, 0.83, 0.775, 0.95), 2.0, 40.0, "cuda"),
    "scan": ((0.55, 0.55, 0.55, 0.55, 0.55), 0.1, 30.0, "cuda"),
}
WIDE, NARROW = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, make_record: Callable[..., Record]) -> Path:
    """Four methods, five levels, three seeds; three boards, a failure, images, hostile names."""
    registry.discover()
    store = Store(tmp_path_factory.mktemp("page") / "results")
    data = datasets.load("digits")
    plain = {"dataset": "digits", "dataset_digest": data.digest}
    for method, (scores, fit, shared, device) in SCORES.items():
        for (level, n_labels), score in zip(LABELS.items(), scores, strict=True):
            for seed in range(3) if score else ():
                cost = {"fit_seconds": fit, "stage_seconds": shared, "predict_seconds": 0.0}
                parts = {
                    "n_labels": n_labels,
                    "environment": {"device": device},
                    "cost": cost | {"peak_memory_mib": 100.0, "stages": []},
                }
                record = make_record(
                    score + seed / 1000, parts, method=method, level=level, seed=seed, **plain
                )
                store.write(record, None if seed else view(record, data.class_names))
    changed = {"variant": {"lam": HOSTILE}, "params": {"lam": HOSTILE}}
    odd = make_record(0.4, {"n_labels": 90}, method="ss-dcec", level="5%", **changed, **plain)
    store.write(odd)
    error = {"error": {"message": HOSTILE, "traceback": None}}
    store.write(make_record(None, error, method="sdec", level="5%", **plain))
    for method in ("kmeans", "dcec"):
        store.write(make_record(0.6, {"n_labels": 90}, method=method, schedule="paper", **plain))
    return store.results


def view(record: Record, classes: tuple[str, ...]) -> dict[str, Any]:
    clusters = (Cluster(0, 7, 0.8125, 16, tuple(range(9)), (0.5,) * 9),)
    return View(record["identity"], classes, clusters).to_json()


@pytest.fixture(scope="module")
def address(results: Path) -> str:
    return write_report(results).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page in a window of its own; no request may leave it, no script may fail."""
    contexts, errors, requests = [], [], []

    def visit(query: str = "", size: tuple[int, int] = WIDE, **options: Any) -> Any:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(address + query)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors
    elsewhere = [url for url in requests if not url.startswith((address, "data:"))]
    assert not elsewhere
    assert requests, "the listener heard the page itself"


def rows(page: Any, board: int = 0) -> list[str]:
    """The names of a board's rows that are seen, in their order."""
    table = page.locator("table.board").nth(board)
    return table.locator("tbody tr:visible th").all_inner_texts()


@pytest.mark.parametrize(("scheme", "size"), [("light", NARROW), ("dark", WIDE)])
def test_axe_finds_no_violation(
    visit: Callable[..., Any], size: tuple[int, int], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(size=size, color_scheme=scheme)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    found = axe.run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_form_answers_as_python_does(visit: Callable[..., Any], results: Path) -> None:
    trials = load_results(results)
    table = leaderboard.aggregate(trials)
    board = advice.main_board(table)
    page = visit()
    asked = [(0, 60), (18, 60), (39, 5), (90, 100), (700, 0.5), (90, 25), (500, 1e6)]
    for n_labels, seconds in asked:
        page.fill("[name=labels]", str(n_labels))
        page.fill("[name=seconds]", str(seconds))
        for device in ("cpu", "cuda"):
            page.select_option("[name=device]", device)
            assert page.locator("#ask dd").all_inner_texts() == [
                expected(choice)
                for choice in choices(
                    table, trials, board, asked=n_labels, device=device, seconds=seconds
                )
            ], (n_labels, seconds, device)


def choices(
    table: pd.DataFrame,
    trials: pd.DataFrame,
    board: Any,
    *,
    asked: int,
    device: str,
    seconds: float,
) -> list[advice.Choice | None]:
    entries = advice.answer(table, trials, board, asked).entries
    for found in advice.choose(entries, seconds):
        if found.device == device:
            return [found.best, found.best_unlabelled, found.cheapest]
    return [None] * 3


def expected(choice: advice.Choice | None) -> str:
    if choice is None:
        return "none in that time"
    entry, seconds = choice.entry, choice.cost.seconds
    low, high, mean = (f"{x:.3f}"[1:] for x in (entry.low, entry.high, entry.accuracy))
    spent = f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"
    return f"{entry.method}: {mean} (95 % {low} to {high}), {spent} s"


def test_what_was_asked_is_kept_and_nonsense_is_answered(visit: Callable[..., Any]) -> None:
    page = visit("?labels=500&seconds=5&device=cpu")
    assert page.input_value("[name=labels]") == "500"
    assert page.locator("#ask dd").first.inner_text().startswith("supervised-lr: .931")
    page.fill("[name=labels]", "-3")
    assert page.locator("#ask output").inner_text().startswith("Give a whole number of labels")
    page.fill("[name=labels]", "20")
    page.reload()
    assert page.input_value("[name=labels]") == "20"
    assert "Measured with 18 labels." in page.locator("#ask output").inner_text()


def test_boards_are_sorted_and_filtered_and_the_address_keeps_it(
    visit: Callable[..., Any],
) -> None:
    page = visit()
    heads = page.locator("table.board").first.locator("thead button")
    assert sorted(rows(page)) == sorted([*SCORES, "sdec", f"ss-dcec lam={HOSTILE!r}"])
    heads.filter(has_text="5 %").click()
    assert rows(page)[:4] == ["simclr-lr", "ss-dcec", "supervised-lr", "scan"]
    assert rows(page)[-1] == "sdec", "what has no value comes last"
    assert page.locator("[aria-sort=descending]").first.inner_text().startswith("5 %")
    heads.filter(has_text="5 %").click()
    page.reload()
    assert rows(page)[:2] == [f"ss-dcec lam={HOSTILE!r}", "scan"]
    assert rows(page)[-1] == "sdec"
    page.select_option("[name=family]", "dcec")
    assert set(rows(page)) == {"ss-dcec", "sdec", f"ss-dcec lam={HOSTILE!r}"}
    page.select_option("[name=seeds]", "3")
    assert rows(page) == ["ss-dcec"]
    page.select_option("[name=level]", "5%")
    page.reload()
    assert rows(page) == ["ss-dcec"]
    seen = page.locator("table.board").first.locator("thead th:visible").all_inner_texts()
    assert [x.split()[0] for x in seen] == ["method", "5", "mean", "fit", "shared"]
    assert page.locator("table.board:visible").count() == 1
    assert "Shown: 1 of the rows, on 1 of 3 boards." in page.locator("#shown").inner_text()
    page.click("text=Show all")
    assert len(rows(page)) == 6
    assert "?sort=5%25&order=ascending" in page.url, "the order stays"


def test_a_row_opens_its_card(visit: Callable[..., Any]) -> None:
    page = visit()
    card = page.locator("details:has(#card-ss-dcec)")
    assert not card.locator("dl").is_visible()
    page.locator("table.board tbody td").first.click()
    assert page.url.split("#")[1] == page.locator("details[open] [id^=card-]").get_attribute("id")
    page.goto(page.url.split("#")[0] + "#card-ss-dcec")
    assert card.locator("dl").is_visible()
    assert "Fiorentino" in card.inner_text()
    select = card.locator(".confusions select")
    options = select.locator("option").all_inner_texts()
    assert len(options) == len(LABELS)
    select.select_option(index=0)
    caption = card.locator(".confusion caption").inner_text()
    assert caption == f"Confusion of ss-dcec: {options[0]}"
    cells = card.locator(".confusion tbody tr").first.locator("td").all_inner_texts()
    assert cells == ["100.0", "", ""]


def test_by_keyboard_alone(visit: Callable[..., Any]) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("table.board thead button").first.focus()
    page.keyboard.press("Enter")
    assert rows(page) == sorted(rows(page))
    page.locator("table.board tbody a").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_without_a_script_everything_is_there(visit: Callable[..., Any]) -> None:
    page = visit(java_script_enabled=False)
    assert len(rows(page)) == 6
    assert not page.locator("#ask").is_visible()
    assert not page.locator("#filters").is_visible()
    assert page.locator(".budgets dd").count() >= 3
    card = page.locator("details:has(#card-ss-dcec)")
    card.locator("summary").click()
    assert card.locator(".confusion td").first.is_visible()


def test_hostile_names_are_text(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.title() == "Clustering with few labels: report"
    assert page.locator("b", has_text="[x]").count() == 0
    assert f"ss-dcec lam={HOSTILE!r}" in rows(page)
    assert page.locator("#missing td", has_text=HOSTILE).count() == 1
    texts = page.locator("svg text").all_text_contents()
    assert any("$1_$2" in text for text in texts)


def test_the_text_of_figures_is_text(visit: Callable[..., Any]) -> None:
    page = visit()
    name = page.locator("#answer svg text", has_text="simclr-lr").first
    name.evaluate("one => getSelection().selectAllChildren(one)")
    assert "simclr-lr" in page.evaluate("String(getSelection())")


def test_it_prints(visit: Callable[..., Any]) -> None:
    page = visit(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="light")
    assert not page.locator("#filters").is_visible()
    assert page.locator(".budgets").is_visible()
    assert page.pdf().startswith(b"%PDF")
