// Uses a report as a reader would, and leaves what it saw in the page.
(() => {
  document.body.getBoundingClientRect();
  const told = { drawn: Math.round(performance.now()), errors: [] };
  addEventListener("error", event => told.errors.push(event.message));
  try {
    const marks = figure => figure.querySelectorAll("svg.panel :is(rect, path, image), .words td").length;
    // A model that the page runs is drawn when it is ready.
    const drawn = [...document.querySelectorAll("figure")].filter(f => !f.querySelector(".rerun"));
    told.marks = Object.fromEntries(drawn.map(f => [f.dataset.name, marks(f)]));
    told.loaded = performance.getEntriesByType("resource").map(r => r.name);

    const view = document.querySelector(".attention");
    if (view) {
      const pattern = () => view.querySelector(".panels").innerHTML;
      const choose = (name, value) => {
        const select = view.querySelector(`[data-choice=${name}]`);
        select.value = value;
        select.dispatchEvent(new Event("change"));
        return pattern();
      };
      told.first = pattern();
      for (const name of ["head", "sequence", "weighting"]) {
        told[name] = choose(name, 1);
        choose(name, 0);
      }
    }
    const heads = document.querySelector(".heads");
    if (heads) {
      const at = (panel, row, column, kind) => {
        const box = panel.getBoundingClientRect(), scale = box.width / panel.viewBox.baseVal.width;
        const [left, top, wide, high] = panel.dataset.cells.split(" ").map(Number);
        panel.dispatchEvent(new PointerEvent(kind, {
          bubbles: true, clientX: box.left + (left + (column + .5) * wide) * scale, clientY: box.top + (top + (row + .5) * high) * scale,
        }));
      };
      const panels = () => heads.querySelectorAll("svg.panel"), tip = document.getElementById("tip");
      told.heads = {};
      const [layers, each] = panels()[0].dataset.shape.split(" ").map(Number);
      for (let layer = 0; layer < layers; layer++) for (let head = 0; head < each; head++) {
        at(panels()[0], layer, head, "click");
        const pattern = panels()[1], n = Number(pattern.dataset.shape.split(" ")[0]);
        const said = told.heads[pattern.querySelector(".title").textContent.slice(5)] = {};
        for (let query = 0; query < n; query++) for (let key = 0; key < n; key++) {
          at(pattern, query, key, "pointermove");
          said[`${query} ${key}`] = tip.hidden ? "" : tip.textContent.split("\n").at(-1);
        }
      }
      at(panels()[1], 2, 0, "click");
      told.pressed = String([...heads.querySelectorAll(".tokens button")].findIndex(b => b.ariaPressed === "true"));
      const cells = document.querySelectorAll(".words tbody td");
      cells[cells.length - 1].dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 9, clientY: 9 }));
      told.word = tip.textContent;
      const text = Blob, make = URL.createObjectURL;
      URL.createObjectURL = blob => (told.heads_csv = blob.whole.slice(0, 300), "#");
      globalThis.Blob = class extends text { constructor(parts, options) { super(parts, options); this.whole = parts.join(""); } };
      document.querySelector("#picture-attention [data-save=csv]").click();
      [globalThis.Blob, URL.createObjectURL] = [text, make];
    }
    const range = document.querySelector(".frames input");
    if (range) {
      range.value = 3;
      range.dispatchEvent(new Event("input"));
      told.frame = document.querySelector(".frame:not([hidden])").dataset.label;
    }
    const map = document.querySelector("#picture-ov svg.panel");
    if (map) {
      const box = map.getBoundingClientRect(), scale = box.width / map.viewBox.baseVal.width;
      const [left, top, wide, high] = map.dataset.cells.split(" ").map(Number);
      map.dispatchEvent(new PointerEvent("pointermove", {
        bubbles: true, clientX: box.left + (left + 2.5 * wide) * scale, clientY: box.top + (top + 1.5 * high) * scale,
      }));
      told.tip = document.getElementById("tip").textContent;
      // What would be saved, kept here.
      const blobs = [];
      URL.createObjectURL = blob => (blobs.push(blob), "#");
      const text = Blob;
      globalThis.Blob = class extends text { constructor(parts, options) { super(parts, options); this.whole = parts.join(""); } };
      for (const kind of ["svg", "csv"]) document.querySelector(`#picture-ov [data-save=${kind}]`).click();
      [told.svg, told.csv] = blobs.map(b => b.whole.slice(0, 300));
    }
  } catch (error) {
    told.errors.push(String(error));
  }
  const tell = () => {
    const pre = document.createElement("pre");
    pre.id = "told";
    pre.textContent = JSON.stringify(told);
    document.body.append(pre);
  };
  const rerun = document.querySelector(".rerun");
  if (!rerun) return tell();
  // The browser hands the page over once it is loaded: an image on its way holds that back until the model is ready.
  const once = (ready, then, tries) => {
    if (ready() || !tries) return then();
    const image = new Image();
    image.onload = image.onerror = () => once(ready, then, tries - 1);
    image.src = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="1" height="${tries}"/>`;
  };
  once(() => "ready" in rerun.dataset, () => {
    try {
      const figure = rerun.closest("figure"), values = () => figure.rows().map(row => row.value);
      const state = () => ({ values: values(), said: rerun.querySelector(".said").textContent, took: Number(rerun.dataset.took), link: location.hash });
      told.marks[figure.dataset.name] = figure.querySelectorAll("svg.panel :is(rect, path, image)").length;
      told.rerun = { before: state(), patterns: rerun.querySelectorAll("svg.panel").length };
      const select = rerun.querySelector(".tokens select"), buttons = rerun.querySelectorAll(".card button");
      // The first token changed, then the last head ablated, then all as it was.
      select.value = (Number(select.value) + 1) % select.length;
      told.rerun.token = Number(select.value);
      select.dispatchEvent(new Event("change"));
      told.rerun.changed = state();
      buttons[buttons.length - 1].click();
      told.rerun.ablated = state();
      told.rerun.table = [...rerun.querySelectorAll("tbody tr")].map(row => Number(row.cells[1].title));
      rerun.querySelector("[data-reset]").click();
      told.rerun.reset = state();
    } catch (error) {
      told.errors.push(String(error));
    }
    tell();
  }, 20000);
})();
