// Uses a report as a reader would, and leaves what it saw in the page.
(() => {
  document.body.getBoundingClientRect();
  const told = { drawn: Math.round(performance.now()), errors: [] };
  addEventListener("error", event => told.errors.push(event.message));
  try {
    const marks = figure => figure.querySelectorAll("svg.panel :is(rect, path, image)").length;
    told.marks = Object.fromEntries([...document.querySelectorAll("figure")].map(f => [f.dataset.name, marks(f)]));
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
  const pre = document.createElement("pre");
  pre.id = "told";
  pre.textContent = JSON.stringify(told);
  document.body.append(pre);
})();
