// One image: large, with everything known about it, and the command that makes it again.
"use strict";

(() => {
  const ROWS_A_CHUNK = 50;
  const byId = (id) => document.getElementById(id);
  const dialog = byId("detail");
  const chunks = new Map();
  const waiting = new Map();
  let cells = [];
  let place = 0;

  // Called by data/details-N.js.
  clora.details = (number, rows) => {
    chunks.set(number, rows);
    waiting.get(number)?.resolve();
  };

  // Returns when the chunk is here; scripts can be loaded from disk where fetch cannot.
  function load(number) {
    if (chunks.has(number)) return Promise.resolve();
    if (!waiting.has(number)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      waiting.set(number, entry);
      const script = clora.el("script", { src: `data/details-${number}.js` });
      script.addEventListener("error", () => { waiting.delete(number); entry.reject(); });
      document.head.append(script);
    }
    return waiting.get(number).promise;
  }

  function picture(item, detail) {
    const { arm, set, seed } = clora.describe(item);
    if (!detail?.image && clora.isFailed(item.cell)) {
      return clora.el("p", { className: "faint", textContent: "This row has no image." });
    }
    const thumb = `thumbs/${item.cell[0]}.webp`;
    const image = clora.el("img", { src: detail?.image ?? thumb, alt: `${arm}: ${set}, seed ${seed}` });
    // A report that was copied without its output still has the small pictures.
    image.addEventListener("error", () => { if (!image.src.endsWith(thumb)) image.src = thumb; });
    return image;
  }

  function maps(src) {
    const sheet = clora.el("div", { className: "scroll", tabIndex: 0, role: "region",
      ariaLabel: "Attention maps" },
    clora.el("img", { src, alt: "Attention map and mask of each concept, step by step" }));
    return clora.el("figure", {}, sheet, clora.el("figcaption", {
      textContent: "Where each concept looks as sampling goes on, with the outline of its mask.",
    }));
  }

  function group([title, facts]) {
    const list = clora.el("dl", {}, ...facts.map(([name, value]) => clora.el("div", {},
      clora.el("dt", { textContent: name }), clora.el("dd", { textContent: value }))));
    return [clora.el("h4", { textContent: title }), list];
  }

  function fill(item, detail) {
    const { prompt, arm } = clora.describe(item);
    byId("detail-title").textContent = `${prompt}, ${arm}`;
    byId("detail-image").replaceChildren(picture(item, detail));
    byId("detail-command").textContent = detail?.command ?? "";
    byId("copy").textContent = "Copy";
    byId("detail-groups").replaceChildren(...(detail?.groups ?? []).flatMap(group));
    byId("detail-maps").replaceChildren(...(detail?.maps ? [maps(detail.maps)] : []));
    byId("detail-previous").disabled = place <= 0;
    byId("detail-next").disabled = place >= cells.length - 1;
  }

  async function show() {
    const item = cells[place];
    const number = item.cell[2];
    const chunk = Math.floor(number / ROWS_A_CHUNK);
    if (!chunks.has(chunk)) fill(item, null);
    try {
      await load(chunk);
    } catch {
      byId("detail-groups").textContent = `data/details-${chunk}.js cannot be read; write the report again.`;
      return;
    }
    if (cells[place] === item) fill(item, chunks.get(chunk)[number % ROWS_A_CHUNK]);
  }

  function go(step) {
    const next = place + step;
    if (next < 0 || next >= cells.length) return;
    place = next;
    show();
  }

  clora.open = (item) => {
    cells = clora.shownCells();
    place = cells.findIndex(({ cell }) => cell === item.cell);
    show();
    dialog.showModal();
    dialog.scrollTop = 0;
  };

  byId("detail-previous").addEventListener("click", () => go(-1));
  byId("detail-next").addEventListener("click", () => go(1));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  byId("copy").addEventListener("click", async () => {
    const command = byId("detail-command");
    try {
      await navigator.clipboard.writeText(command.textContent);
      byId("copy").textContent = "Copied";
    } catch {
      // Pages from disk may not write to the clipboard everywhere; selecting is the next best.
      getSelection().selectAllChildren(command);
      byId("copy").textContent = "Selected";
    }
  });
})();
