// What a page of pictures needs beyond drawing: values under the pointer, sliders, attention patterns to
// choose from, and saving. The charts themselves stand in the page.
"use strict";
(() => {
  const all = (root, query) => [...root.querySelectorAll(query)];
  const numbersOf = figure => figure.numbers ??= JSON.parse(figure.querySelector("script.numbers").textContent);
  const show = x => x == null ? "–" : Number.isInteger(x) ? String(x) : String(Number(x.toPrecision(4)));

  // ---- Values under the pointer
  const tip = document.getElementById("tip");
  // A place in the panel's own pixels.
  const place = (panel, event) => {
    const box = panel.getBoundingClientRect(), view = panel.viewBox.baseVal;
    return [(event.clientX - box.left) * view.width / box.width, (event.clientY - box.top) * view.height / box.height];
  };
  // The charts that are to be seen, and which of their panels this is.
  const panelOf = panel => {
    const figure = panel.closest("figure"), view = numbersOf(figure);
    const root = panel.closest(".frame") ?? panel.closest(".panels");
    const frames = all(figure, ".frame");
    const chart = view.frames ? view.frames.frames[frames.indexOf(root)].chart : view.chart;
    return [chart, all(root, "svg.panel").indexOf(panel)];
  };
  const cellWords = (panel, event) => {
    const [x, y] = place(panel, event);
    const [left, top, wide, high] = panel.dataset.cells.split(" ").map(Number);
    const [rows, columns] = panel.dataset.shape.split(" ").map(Number);
    const row = Math.floor((y - top) / high), column = Math.floor((x - left) / wide);
    if (row < 0 || column < 0 || row >= rows || column >= columns) return null;
    const [chart, index] = panelOf(panel), map = chart.heat_maps.maps[index];
    return `${map.rows.title} ${map.rows.labels[row]}, ${map.columns.title} ${map.columns.labels[column]}\n` +
      show(map.values[row * columns + column]);
  };
  const pointWords = (panel, event) => {
    const [chart, index] = panelOf(panel);
    if (!chart.xy) return null;
    const [x, y] = place(panel, event), near = 12;
    const scale = text => {
      const [v0, v1, p0, p1] = text.split(" ").map(Number);
      return v => p0 + (v - v0) / (v1 - v0) * (p1 - p0);
    };
    const toX = scale(panel.dataset.x), toY = scale(panel.dataset.y), plot = chart.xy[index];
    let best = near ** 2, words = null;
    for (const series of plot.series) series.x.forEach((vx, i) => {
      const vy = series.y[i];
      if (vx == null || vy == null) return;
      const away = (toX(vx) - x) ** 2 + (toY(vy) - y) ** 2;
      if (away >= best) return;
      best = away;
      words = [series.labels?.[i], series.name, `${plot.x} ${show(vx)}, ${plot.y} ${show(vy)}`].filter(Boolean).join("\n");
    });
    return words;
  };
  const wordsAt = event => {
    const target = event.target.closest?.("[data-tip]");
    if (target) return target.dataset.tip;
    const panel = event.target.closest?.("svg.panel");
    if (!panel) return null;
    return panel.dataset.cells ? cellWords(panel, event) : panel.dataset.x ? pointWords(panel, event) : null;
  };
  const point = event => {
    const words = wordsAt(event);
    tip.hidden = !words;
    if (!words) return;
    tip.textContent = words;
    const gap = 14, box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + gap, innerWidth - box.width - 4)) + "px";
    tip.style.top = (event.clientY + gap + box.height > innerHeight ? event.clientY - gap - box.height : event.clientY + gap) + "px";
  };
  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // ---- Sliders
  for (const view of all(document, ".frames")) {
    const frames = all(view, ".frame"), range = view.querySelector("input"), play = view.querySelector("[data-play]");
    const go = at => {
      frames.forEach((frame, i) => { frame.hidden = i !== at; });
      range.value = at;
      view.querySelector("output").textContent = frames[at].dataset.label;
    };
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
    range.addEventListener("input", () => { stop(); go(Number(range.value)); });
    play.addEventListener("click", () => {
      if (timer) return stop();
      play.textContent = "Stop";
      const step = () => go((Number(range.value) + 1) % frames.length);
      step();
      timer = setInterval(step, 500);
    });
  }

  // ---- Attention patterns
  const svg = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const drawPattern = (tokens, weight, most) => {
    const n = tokens.length, cell = Math.max(7, Math.min(26, 440 / n)), every = Math.ceil(11 / cell);
    const labels = tokens.map((token, i) => `${i}: ${token}`);
    const left = 28 + 6.2 * Math.max(...labels.map(l => l.length)), top = 8, side = n * cell;
    const width = left + side + 8, height = top + side + left - 10;
    const panel = svg("svg", { class: "panel", width, height, viewBox: `0 0 ${width} ${height}` });
    panel.append(svg("rect", { class: "edge", x: left, y: top, width: side, height: side }));
    labels.forEach((label, i) => {
      if (i % every) return;
      const at = (i + .5) * cell + 4;
      panel.append(svg("text", { class: "end", x: left - 5, y: top + at }, label));
      panel.append(svg("text", { class: "end", transform: `translate(${left + at} ${top + side + 5}) rotate(-90)` }, label));
    });
    for (let query = 0; query < n; query++) for (let key = 0; key < n; key++) {
      const value = weight(query, key);
      panel.append(svg("rect", {
        class: "cell", x: left + key * cell, y: top + query * cell, width: cell, height: cell,
        "fill-opacity": value == null ? 0 : (value / most).toFixed(3),
        "data-tip": `query ${labels[query]}\nkey ${labels[key]}\n${show(value)}`,
      }));
    }
    panel.append(svg("text", { class: "middle", x: left + side / 2, y: height - 4 }, "key (position: token)"));
    panel.append(svg("text", { class: "middle", transform: `translate(12 ${top + side / 2}) rotate(-90)` }, "query (position: token)"));
    return panel;
  };
  for (const view of all(document, ".attention")) {
    const { attention } = numbersOf(view.closest("figure"));
    const chosen = name => Number(view.querySelector(`[data-choice=${name}]`)?.value ?? 0);
    let query = -1;
    const draw = () => {
      const sequence = attention.sequences[chosen("sequence")], n = sequence.tokens.length, head = chosen("head");
      const { patterns } = attention.weightings[chosen("weighting")];
      const pattern = patterns[chosen("sequence")].slice(head * n * n, (head + 1) * n * n);
      // One scale for all heads and sequences of a weighting, so that they can be compared.
      const most = patterns.reduce((most, p) => p.reduce((m, v) => Math.max(m, v), most), 0) || 1;
      const weight = (q, k) => pattern[q * n + k];
      if (query < 0 || query >= n) query = n - 1;
      view.querySelector(".panels").replaceChildren(drawPattern(sequence.tokens, weight, most));
      view.querySelector(".tokens").replaceChildren(...sequence.tokens.map((token, i) => {
        const button = document.createElement("button");
        const share = Math.round(100 * (weight(query, i) ?? 0) / most);
        button.type = "button";
        button.textContent = token;
        button.className = sequence.marked?.includes(i) ? "marked" : "";
        button.style.background = `color-mix(in srgb, var(--c0, #2f6fb7) ${share * .8}%, var(--panel))`;
        button.setAttribute("aria-pressed", i === query);
        button.dataset.tip = `position ${i}; attention to it from ${query}: ${show(weight(query, i))}`;
        button.addEventListener("click", () => { query = i; draw(); });
        return button;
      }));
    };
    all(view, "select").forEach(select => select.addEventListener("change", draw));
    draw();
  }

  // ---- Saving
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  // All panels of a picture that are to be seen, where they are to be seen.
  const wholeSvg = figure => {
    const panels = all(figure, "svg.panel").filter(p => p.getBoundingClientRect().width > 0);
    const boxes = panels.map(p => p.getBoundingClientRect());
    const left = Math.min(...boxes.map(b => b.left)), top = Math.min(...boxes.map(b => b.top));
    const width = Math.max(...boxes.map(b => b.right)) - left, height = Math.max(...boxes.map(b => b.bottom)) - top;
    const whole = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
    whole.append(svg("style", {}, document.getElementById("chart-style").textContent));
    whole.append(svg("rect", { width: "100%", height: "100%", fill: "#fff" }));
    panels.forEach((panel, i) => {
      const copy = panel.cloneNode(true);
      const at = { x: boxes[i].left - left, y: boxes[i].top - top, width: boxes[i].width, height: boxes[i].height };
      for (const [key, value] of Object.entries(at)) copy.setAttribute(key, value);
      whole.append(copy);
    });
    return new XMLSerializer().serializeToString(whole);
  };
  // One row a number or point: what every spreadsheet and data frame reads.
  const rowsOf = (chart, frame) => {
    const rows = [];
    const add = (panel, values) => rows.push({ ...frame, panel: panel.title, ...values });
    for (const map of chart.heat_maps?.maps ?? []) map.values.forEach((value, i) => {
      const n = map.columns.labels.length;
      add(map, { row: map.rows.labels[Math.floor(i / n)], column: map.columns.labels[i % n], value });
    });
    for (const panel of chart.histograms ?? []) for (const c of panel.classes) c.heights.forEach((height, i) =>
      add(panel, { class: c.name, from: panel.edges[i], to: panel.edges[i + 1], height }));
    for (const panel of chart.bars ?? []) for (const bar of panel.bars) bar.heights.forEach((height, i) =>
      add(panel, { name: bar.name, place: panel.x.labels[i], height, whisker: bar.whiskers?.[i] }));
    for (const panel of chart.boxes ?? []) for (const boxes of panel.boxes) boxes.fives.forEach((five, i) =>
      add(panel, { name: boxes.name, place: panel.x.labels[i], ...five }));
    for (const panel of chart.xy ?? []) for (const s of panel.series) s.x.forEach((x, i) =>
      add(panel, { series: s.name, x, y: s.y[i], label: s.labels?.[i] }));
    return rows;
  };
  const attentionRows = ({ sequences, heads, weightings }) => weightings.flatMap(w => sequences.flatMap((sequence, s) => {
    const n = sequence.tokens.length;
    return w.patterns[s].map((weight, i) => ({
      weighting: w.name, sequence: sequence.name, head: heads[Math.floor(i / (n * n))], query: Math.floor(i / n) % n, key: i % n, weight,
    }));
  }));
  const arrows = ({ nodes, edges }) => edges.map(e => ({ from: nodes[e.from].name, to: nodes[e.to].name, label: e.label }));
  const csv = view => {
    const rows = view.attention ? attentionRows(view.attention)
      : view.diagram ? arrows(view.diagram)
      : view.chart ? rowsOf(view.chart, {})
      : view.frames.frames.flatMap(f => rowsOf(f.chart, { frame: f.label }));
    const quote = value => value == null ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
    const names = Object.keys(rows[0] ?? {});
    return [names, ...rows.map(r => names.map(n => r[n]))].map(r => r.map(quote).join(",") + "\n").join("");
  };
  for (const button of all(document, "[data-save]")) button.addEventListener("click", () => {
    const figure = button.closest("figure"), name = figure.dataset.name, kind = button.dataset.save;
    if (kind === "svg") save(`${name}.svg`, "image/svg+xml", wholeSvg(figure));
    if (kind === "csv") save(`${name}.csv`, "text/csv", csv(numbersOf(figure)));
    if (kind === "json") save(`${name}.json`, "application/json", figure.querySelector("script.numbers").textContent);
  });
})();
