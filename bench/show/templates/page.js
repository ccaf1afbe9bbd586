"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text = "", attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  /* What is chosen stands in the address, so that it can be kept and sent. */
  const chosen = new URLSearchParams(location.search);
  const keep = (name, value) => {
    if (value) chosen.set(name, value);
    else chosen.delete(name);
    const query = chosen.toString();
    history.replaceState(null, "", `${location.pathname}${query && `?${query}`}${location.hash}`);
  };

  /* The form: by the rules of bench/records/advice.py. */
  const ROUNDING = 1e-9;
  const short = (x) => x.toFixed(3).replace(/^0/, "");
  const seconds = (x) => x.toLocaleString("en", x >= 10
    ? { maximumFractionDigits: 0 } : { minimumFractionDigits: 1, maximumFractionDigits: 1 });

  function choices(level, device, limit) {
    const left = level.entries.filter((one) => one.costs[device]?.seconds <= limit);
    const best = left[0];
    const near = left.filter((one) => one.accuracy >= best.accuracy - data.advice.near - ROUNDING);
    const cost = (one) => one.costs[device].seconds;
    return [
      ["The best", best],
      ["The best that uses unlabelled images", left.find((one) => one.uses_unlabelled)],
      [`The cheapest within ${short(data.advice.near).replace(/0+$/, "")} of the best`,
        near.length ? near.reduce((x, y) => (cost(y) < cost(x) ? y : x)) : undefined],
    ];
  }

  function described(one, device) {
    const made = make("dd");
    if (!one) {
      made.textContent = "none in that time";
      return made;
    }
    made.append(make("a", one.method, { href: `#${data.advice.cards[one.method]}` }));
    const interval = one.low === null ? "one seed" : `95 % ${short(one.low)} to ${short(one.high)}`;
    made.append(`: ${short(one.accuracy)} (${interval}), ${seconds(one.costs[device].seconds)} s`);
    return made;
  }

  function reply(form, output) {
    const device = form.device?.value ?? data.advice.devices[0];
    const [labels, limit] = [form.labels, form.seconds].map((x) => x.valueAsNumber);
    const level = data.advice.levels.filter((x) => x.n_labels <= labels).at(-1);
    if (!form.checkValidity()) {
      output.replaceChildren(make("p", "Give a whole number of labels and a number of seconds."));
    } else if (!level) {
      const fewest = data.advice.levels[0].n_labels.toLocaleString("en");
      output.replaceChildren(make("p", `The fewest labels measured are ${fewest}.`));
    } else {
      const list = make("dl");
      for (const [text, one] of choices(level, device, limit)) {
        list.append(make("dt", text), described(one, device));
      }
      output.replaceChildren(list);
      if (level.n_labels !== labels) {
        const measured = level.n_labels.toLocaleString("en");
        output.append(make("p", `Measured with ${measured} labels.`, { class: "note" }));
      }
    }
  }

  const ask = document.getElementById("ask");
  if (ask) {
    const form = ask.querySelector("form");
    const output = ask.querySelector("output");
    for (const field of form.elements) {
      if (chosen.has(field.name)) field.value = chosen.get(field.name);
      if (field.selectedIndex === -1) field.selectedIndex = 0;
      field.addEventListener("input", () => {
        keep(field.name, field.value);
        reply(form, output);
      });
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    ask.hidden = false;
    reply(form, output);
  }

  /* Boards: filter. */
  const filters = document.getElementById("filters");
  const boards = all("table.board");
  const wanted = () => Object.fromEntries(new FormData(filters));
  const boardFits = (board, want) =>
    ["protocol", "selection", "schedule"].every((x) => !want[x] || want[x] === board.dataset[x]) &&
    (!want.level || board.querySelector(`thead [data-level="${CSS.escape(want.level)}"]`));

  function filterBoard(board, want) {
    const least = Number(want.seeds || 0);
    for (const cell of all("[data-level]", board)) {
      cell.hidden = Boolean(want.level) && cell.dataset.level !== want.level;
      if (cell.dataset.seeds) cell.classList.toggle("thin", Number(cell.dataset.seeds) < least);
    }
    let left = 0;
    for (const row of board.tBodies[0].rows) {
      const family = !want.family || row.dataset.family === want.family;
      const seeds = !least || all("[data-seeds]:not([hidden]):not(.thin)", row).length > 0;
      row.hidden = !(family && seeds);
      left += !row.hidden;
    }
    return left;
  }

  function filter() {
    const want = wanted();
    const active = Object.values(want).some(Boolean);
    let rows = 0;
    let shown = 0;
    for (const board of boards) {
      const left = boardFits(board, want) ? filterBoard(board, want) : 0;
      const section = board.closest("section");
      const folded = section.closest("details");
      (folded || section).hidden = left === 0;
      if (folded && active && left) folded.open = true;
      rows += left;
      shown += left > 0;
    }
    document.getElementById("shown").textContent = active
      ? `Shown: ${rows} of the rows, on ${shown} of ${boards.length} boards.`
      : "";
  }

  /* Boards: sort. The first column is text, others are numbers; what has none comes last. */
  const valueOf = (row, index) => {
    const cell = row.cells[index];
    return index === 0 ? cell.textContent : Number(cell.dataset.value ?? NaN);
  };

  function sort(board, head, order) {
    const index = head.cellIndex;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...board.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [valueOf(one, index), valueOf(other, index)];
      if (index === 0) return sign * a.localeCompare(b, "en");
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return sign * (a - b);
    });
    board.tBodies[0].append(...rows);
    for (const other of all("thead th", board)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
  }

  /* A level's headline is better the higher it is; ranks and seconds the lower. */
  const firstOrder = (head) => (head.dataset.level ? "descending" : "ascending");

  function sortAll(column, order) {
    for (const board of boards) {
      const head = all("thead th", board).find((x) => x.dataset.column === column);
      if (head) sort(board, head, order);
    }
  }

  function press(head) {
    const column = head.dataset.column;
    const again = head.getAttribute("aria-sort") === firstOrder(head);
    const reversed = firstOrder(head) === "ascending" ? "descending" : "ascending";
    const order = again ? reversed : firstOrder(head);
    sortAll(column, order);
    keep("sort", column);
    keep("order", order);
  }

  for (const board of boards) {
    for (const head of all("thead th", board)) {
      const button = make("button", "", { type: "button" });
      button.append(head.firstElementChild);
      head.prepend(button);
      button.addEventListener("click", () => press(head));
    }
    board.addEventListener("click", (event) => {
      const row = event.target.closest("tbody tr");
      const busy = event.target.closest("a") || String(getSelection());
      if (row && !busy) row.querySelector("a").click();
    });
  }
  for (const select of all("select", filters)) {
    if (chosen.has(select.name)) select.value = chosen.get(select.name);
    if (select.selectedIndex < 0) select.value = "";
    select.addEventListener("change", () => {
      keep(select.name, select.value);
      filter();
    });
  }
  filters.addEventListener("reset", () => {
    for (const select of all("select", filters)) keep(select.name, "");
    setTimeout(filter);
  });
  filters.hidden = false;
  filter();
  if (chosen.has("sort")) {
    sortAll(chosen.get("sort"), chosen.get("order") === "ascending" ? "ascending" : "descending");
  }

  /* Cards: an address that points into what is folded opens it. */
  function open() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const folded = target.closest("details");
    if (!folded) return;
    folded.open = true;
    folded.scrollIntoView();
    folded.querySelector("summary").focus({ preventScroll: true });
  }
  addEventListener("hashchange", open);
  for (const link of all("a[href^='#']")) {
    link.addEventListener("click", () => { if (link.hash === location.hash) open(); });
  }
  open();

  /* Confusion matrices: any board and level of a method. */
  function confusion(table, classes, rows) {
    const head = make("tr");
    head.append(make("th", "true class, % of its images", { scope: "col" }));
    for (const name of [...classes, "none"]) head.append(make("th", name, { scope: "col" }));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...rows.map((counts, i) => {
      const row = make("tr");
      row.append(make("th", classes[i], { scope: "row" }));
      const sum = counts.reduce((x, y) => x + y, 0);
      for (const count of counts) {
        const share = (sum ? (100 * count) / sum : 0).toFixed(1);
        const cell = make("td", count ? share : "");
        cell.style.setProperty("--p", share);
        row.append(cell);
      }
      return row;
    }));
  }

  for (const place of all(".confusions")) {
    const choices = data.boards.flatMap((board) =>
      Object.keys(board.confusion[place.dataset.name] ?? {}).map((level) => ({ board, level })));
    if (choices.length < 2) continue;
    const table = place.querySelector("table");
    const select = make("select");
    for (const { board, level } of choices) {
      const text = `${board.title} · ${data.levels[level]}`;
      const here = board.anchor === place.dataset.board && level === place.dataset.level;
      const option = make("option", text);
      option.selected = here;
      select.append(option);
    }
    const label = make("label", "Confusion at ");
    label.append(select);
    place.prepend(label);
    select.addEventListener("change", () => {
      const { board, level } = choices[select.selectedIndex];
      table.caption.textContent =
        `Confusion of ${place.dataset.name}: ${board.title} · ${data.levels[level]}`;
      confusion(table, board.classes, board.confusion[place.dataset.name][level]);
    });
  }
})();
