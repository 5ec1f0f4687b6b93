// The contact sheet: which lines and cells are shown, a page at a time. All texts are set as text.
"use strict";

const clora = (() => {
  const LINES_A_PAGE = 8;
  const byId = (id) => document.getElementById(id);
  const state = { arms: new Set(), set: "", status: "all", order: "listed", search: "", page: 0 };
  let data = null;
  let found = [];

  // Returns an element with properties and children; a child that is a string becomes text.
  function el(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  const isFailed = (cell) => cell.length > 3;
  const isShown = (cell, arm) =>
    cell !== null && state.arms.has(arm) &&
    (state.status === "all" || (state.status === "failed") === isFailed(cell));

  const cellsOf = (line) =>
    line[3].map((cell, arm) => ({ cell, arm, line })).filter(({ cell, arm }) => isShown(cell, arm));

  // Score of the reference less the best other method that is shown; null where either is missing.
  function gain(line) {
    const reference = data.arms.indexOf(data.reference);
    const mine = line[3][reference]?.[1] ?? null;
    const others = line[3]
      .filter((cell, arm) => cell && arm !== reference && state.arms.has(arm) && cell[1] !== null)
      .map((cell) => cell[1]);
    return mine === null || !others.length ? null : mine - Math.max(...others);
  }

  const lowest = (line) => {
    const scores = cellsOf(line).map(({ cell }) => cell[1]).filter((score) => score !== null);
    return scores.length ? Math.min(...scores) : null;
  };

  const ORDERS = {
    gain: (line) => gain(line) === null ? null : -gain(line),
    loss: gain,
    lowest,
  };

  function find() {
    const text = state.search.trim().toLowerCase();
    found = data.lines.filter((line) =>
      (state.set === "" || line[1] === Number(state.set)) &&
      (!text || data.prompts[line[0]].toLowerCase().includes(text)) &&
      line[3].some((cell, arm) => isShown(cell, arm)));
    const value = ORDERS[state.order];
    if (value) {
      const keyed = found.map((line) => [value(line), line]).filter(([key]) => key !== null);
      found = keyed.sort(([one], [other]) => one - other).map(([, line]) => line);
    }
  }

  const shownCells = () => found.flatMap(cellsOf);

  function cellButton(item) {
    const { cell, arm, line } = item;
    const name = data.arms[arm];
    const what = `${data.sets[line[1]]}, seed ${line[2]}`;
    const button = el("button", { type: "button", className: "cell" });
    if (name === data.reference) button.classList.add("reference");
    if (isFailed(cell)) {
      button.classList.add("failed");
      button.append(el("span", { className: "none", textContent: "no image" }));
    } else {
      button.append(el("img", {
        src: `thumbs/${cell[0]}.webp`, loading: "lazy", decoding: "async",
        width: 192, height: 192, alt: `${name}: ${what}`,
      }));
    }
    const score = cell[1] === null ? "" : cell[1].toFixed(2);
    button.append(el("span", { className: "under" },
      el("span", { textContent: name }), el("span", { className: "faint", textContent: score })));
    button.addEventListener("click", () => clora.open(item));
    return el("li", {}, button);
  }

  function lineBlock(line) {
    return el("section", { className: "line" },
      el("h3", { textContent: data.prompts[line[0]] }),
      el("p", { textContent: `${data.sets[line[1]] || "no LoRA"} · seed ${line[2]}` }),
      el("ol", { className: "cells" }, ...cellsOf(line).map(cellButton)));
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / LINES_A_PAGE));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const start = state.page * LINES_A_PAGE;
    const lines = found.slice(start, start + LINES_A_PAGE);
    byId("sheet").style.setProperty("--columns", String(Math.min(Math.max(state.arms.size, 1), 8)));
    byId("sheet").replaceChildren(...lines.map(lineBlock));
    const total = found.length.toLocaleString("en");
    byId("count").textContent = found.length
      ? `Lines ${start + 1} to ${start + lines.length} of ${total}, the methods side by side; numbers are DINO min.`
      : "Nothing matches these filters.";
    byId("pager").hidden = pages === 1;
    byId("page").textContent = `Page ${state.page + 1} of ${pages.toLocaleString("en")}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page === pages - 1;
  }

  function refresh() {
    state.page = 0;
    find();
    draw();
  }

  function turn(step) {
    state.page += step;
    draw();
    byId("pictures").scrollIntoView();
  }

  function fillFilters() {
    data.arms.forEach((name, arm) => {
      state.arms.add(arm);
      const box = el("input", { type: "checkbox", checked: true, value: String(arm) });
      box.addEventListener("change", () => {
        if (box.checked) state.arms.add(arm); else state.arms.delete(arm);
        refresh();
      });
      byId("arm-boxes").append(el("label", { className: "chip" }, box, name));
    });
    byId("set").append(el("option", { value: "", textContent: "all" }),
      ...data.sets.map((name, set) => el("option", { value: String(set), textContent: name || "no LoRA" })));
    const orders = [["lowest", "lowest score first"]];
    if (data.reference) {
      orders.unshift(["gain", `where ${data.reference} gains most`], ["loss", `where ${data.reference} loses most`]);
    }
    byId("order").append(...orders.map(([value, name]) => el("option", { value, textContent: name })));
    for (const name of ["set", "status", "order"]) {
      byId(name).addEventListener("change", (event) => { state[name] = event.target.value; refresh(); });
    }
    byId("search").addEventListener("input", (event) => { state.search = event.target.value; refresh(); });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("previous").addEventListener("click", () => turn(-1));
    byId("next").addEventListener("click", () => turn(1));
    byId("filters").hidden = false;
  }

  return {
    el,
    isFailed,
    shownCells,
    describe: ({ line, arm }) => ({
      prompt: data.prompts[line[0]], set: data.sets[line[1]], seed: line[2], arm: data.arms[arm],
    }),
    // Called by data/index.js.
    index(loaded) {
      data = loaded;
      fillFilters();
      refresh();
    },
  };
})();
