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
  // Row and column of a panel's cell, and how many columns there are.
  const cellAt = (panel, event) => {
    const [x, y] = place(panel, event);
    const [left, top, wide, high] = panel.dataset.cells.split(" ").map(Number);
    const [rows, columns] = panel.dataset.shape.split(" ").map(Number);
    const row = Math.floor((y - top) / high), column = Math.floor((x - left) / wide);
    return row < 0 || column < 0 || row >= rows || column >= columns ? null : [row, column, columns];
  };
  const cellWords = (panel, event) => {
    const cell = cellAt(panel, event);
    if (!cell) return null;
    const [row, column, columns] = cell;
    if (panel.wordsOf) return panel.wordsOf(row, column);
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
  // Of a table of words.
  const gridWords = cell => {
    const grid = numbersOf(cell.closest("figure")).words, row = cell.parentNode.sectionRowIndex, column = cell.cellIndex - 1;
    const said = grid.cells[row * grid.columns.labels.length + column].map(([word, share]) => `“${grid.words[word]}” ${show(share)}`);
    return [`${grid.columns.title} ${grid.columns.labels[column]}, ${grid.rows.labels[row]}`, ...said].join("\n");
  };
  const wordsAt = event => {
    const target = event.target.closest?.("[data-tip]");
    if (target) return target.dataset.tip;
    const word = event.target.closest?.(".words td");
    if (word) return gridWords(word);
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

  // ---- Attention of every head of a sequence
  const weightsOf = ({ tokens: { length: n }, layers, heads, causal, weights }) => {
    const bytes = Uint8Array.from(atob(weights), c => c.charCodeAt(0)), each = causal ? n * (n + 1) / 2 : n * n;
    return (layer, head, query, key) => {
      if (causal && key > query) return null;
      return bytes[(layer * heads + head) * each + (causal ? query * (query + 1) / 2 + key : query * n + key)] / 255;
    };
  };
  // Every layer's heads, to choose one.
  const drawHeads = ({ layers, heads, scores, score }, [layer, head], choose) => {
    const wide = Math.max(8, Math.min(20, 220 / heads)), high = Math.max(8, Math.min(20, 420 / layers));
    const left = 42, top = 22, width = left + heads * wide + 8, height = top + layers * high + 34;
    const panel = svg("svg", { class: "panel choice", width, height, viewBox: `0 0 ${width} ${height}` });
    panel.dataset.cells = [left, top, wide, high].join(" ");
    panel.dataset.shape = `${layers} ${heads}`;
    const most = Math.max(...scores.map(Math.abs), 0) || 1;
    for (let l = 0; l < layers; l++) for (let h = 0; h < heads; h++) {
      const x = scores[l * heads + h] ?? 0;
      const cell = { x: left + h * wide + .5, y: top + l * high + .5, width: wide - 1, height: high - 1 };
      panel.append(svg("rect", { class: "ground", ...cell }));
      panel.append(svg("rect", { class: x < 0 ? "lowers" : "cell", ...cell, "fill-opacity": (Math.abs(x) / most).toFixed(3) }));
    }
    const every = (size, text) => Math.ceil(text / size);
    for (let l = 0; l < layers; l += every(high, 12)) panel.append(svg("text", { class: "end", x: left - 5, y: top + (l + .5) * high + 4 }, l));
    for (let h = 0; h < heads; h += every(wide, 15)) panel.append(svg("text", { class: "middle", x: left + (h + .5) * wide, y: top + layers * high + 14 }, h));
    panel.append(svg("text", { class: "middle", x: left + heads * wide / 2, y: height - 5 }, "head"));
    panel.append(svg("text", { class: "middle", transform: `translate(12 ${top + layers * high / 2}) rotate(-90)` }, "layer"));
    panel.append(svg("rect", { class: "mark", x: left + head * wide, y: top + layer * high, width: wide, height: high }));
    panel.wordsOf = (l, h) => `head ${l}.${h}` + (score ? `\n${score}: ${show(scores[l * heads + h])}` : "");
    panel.addEventListener("click", event => { const cell = cellAt(panel, event); if (cell) choose(cell[0], cell[1]); });
    return panel;
  };
  // A pattern as an image, however many tokens there are.
  const drawImage = (title, tokens, weight, most, press, wide = 440) => {
    const n = tokens.length, cell = Math.max(2, Math.min(26, wide / n)), every = Math.ceil(11 / cell), longest = 14;
    const labels = tokens.map((token, i) => `${i}: ${token.length > longest ? token.slice(0, longest - 1) + "…" : token}`);
    const left = 30 + 6.2 * Math.max(...labels.map(l => l.length)), top = 22, side = n * cell;
    const width = left + side + 8, height = top + side + left - 10, what = side > 160 ? " (position: token)" : "";
    const panel = svg("svg", { class: "panel choice", width, height, viewBox: `0 0 ${width} ${height}` });
    panel.dataset.cells = [left, top, cell, cell].join(" ");
    panel.dataset.shape = `${n} ${n}`;
    // Many pixels a cell, so that no viewer blurs them.
    const canvas = (size, draw) => {
      const element = Object.assign(document.createElement("canvas"), { width: size, height: size });
      draw(element.getContext("2d", { willReadFrequently: true }));
      return element;
    };
    const cells = canvas(n, pen => {
      const image = pen.createImageData(n, n);
      for (let query = 0; query < n; query++) for (let key = 0; key < n; key++)
        image.data[4 * (query * n + key) + 3] = 255 * Math.min(1, (weight(query, key) ?? 0) / most);
      pen.putImageData(image, 0, 0);
    });
    const large = n * Math.ceil(2 * side / n), whole = canvas(large, pen => {
      pen.imageSmoothingEnabled = false;
      pen.drawImage(cells, 0, 0, large, large);
      pen.globalCompositeOperation = "source-in";
      pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--c0") || "#2f6fb7";
      pen.fillRect(0, 0, large, large);
    });
    panel.append(svg("image", { x: left, y: top, width: side, height: side, preserveAspectRatio: "none", href: whole.toDataURL() }));
    panel.append(svg("rect", { class: "edge", x: left, y: top, width: side, height: side }));
    panel.append(svg("text", { class: "title", x: left + side / 2, y: 14 }, title));
    for (let i = 0; i < n; i += every) {
      const at = (i + .5) * cell + 4;
      panel.append(svg("text", { class: "end", x: left - 5, y: top + at }, labels[i]));
      panel.append(svg("text", { class: "end", transform: `translate(${left + at} ${top + side + 5}) rotate(-90)` }, labels[i]));
    }
    panel.append(svg("text", { class: "middle", x: left + side / 2, y: height - 4 }, `is looked at${what}`));
    panel.append(svg("text", { class: "middle", transform: `translate(12 ${top + side / 2}) rotate(-90)` }, `looks${what}`));
    panel.append(svg("rect", { class: "mark", x: left, y: 0, width: side, height: cell }));
    panel.mark = query => panel.querySelector(".mark").setAttribute("y", top + query * cell);
    panel.wordsOf = (q, k) => weight(q, k) == null ? null : `${q}: ${tokens[q]}\nlooks at ${k}: ${tokens[k]}\n${rounded(weight(q, k))}`;
    panel.addEventListener("click", event => { const at = cellAt(panel, event); if (at) press(at[0]); });
    return panel;
  };
  // As many digits as eight bits have.
  const rounded = x => x == null ? "–" : x === 0 ? "below 0.002" : x.toFixed(3);
  for (const view of all(document, ".heads")) {
    const { heads } = numbersOf(view.closest("figure")), { tokens } = heads, weights = weightsOf(heads);
    const control = name => view.querySelector(`[data-choice=${name}]`);
    let { query } = heads, panel, weight;
    const buttons = tokens.map((token, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = token;
      button.addEventListener("click", () => press(i));
      return button;
    });
    view.querySelector(".tokens").replaceChildren(...buttons);
    let most = 1;
    const press = i => {
      query = i;
      panel.mark(i);
      const percent = x => `${Math.round(Math.min(1, (x ?? 0) / most) * 80)}%`;
      buttons.forEach((button, k) => {
        const [to, from] = [weight(i, k), weight(k, i)];
        button.style.background = `color-mix(in srgb, var(--c0, #2f6fb7) ${percent(to)}, var(--panel))`;
        button.style.boxShadow = `inset 0 -3px color-mix(in srgb, var(--c1, #d9722a) ${percent(from)}, transparent)`;
        button.setAttribute("aria-pressed", k === i);
        button.dataset.tip = `position ${k}` + (to == null ? "" : `\n${i} looks at it: ${rounded(to)}`) + (from == null ? "" : `\nit looks at ${i}: ${rounded(from)}`);
      });
    };
    const draw = () => {
      const layer = Number(control("layer").value), head = Number(control("head").value), faded = control("faded").checked;
      weight = (q, k) => faded && k === 0 ? null : weights(layer, head, q, k);
      most = 1;
      if (faded) {
        most = 1 / 255;
        for (let q = 0; q < tokens.length; q++) for (let k = 1; k < tokens.length; k++) most = Math.max(most, weight(q, k) ?? 0);
      }
      panel = drawImage(`head ${layer}.${head}`, tokens, weight, most, press);
      const choose = (l, h) => { control("layer").value = l; control("head").value = h; draw(); };
      view.querySelector(".panels").replaceChildren(drawHeads(heads, [layer, head], choose), panel);
      press(query);
    };
    all(view, "[data-choice]").forEach(choice => choice.addEventListener("change", draw));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    draw();
  }

  // ---- Tables of words begin where they are read
  for (const view of all(document, ".words")) {
    const cell = view.querySelector("thead tr").cells[Number(view.dataset.column) + 1];
    view.scrollLeft = cell.offsetLeft + cell.offsetWidth - view.clientWidth;
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
  const headRows = view => {
    const weights = weightsOf(view), rows = [], n = view.tokens.length;
    for (let layer = 0; layer < view.layers; layer++) for (let head = 0; head < view.heads; head++)
      for (let query = 0; query < n; query++) for (let key = 0; key < n; key++) {
        const weight = weights(layer, head, query, key);
        if (weight != null) rows.push({ head: `${layer}.${head}`, query, key, from: view.tokens[query], to: view.tokens[key], weight: weight.toFixed(4) });
      }
    return rows;
  };
  const wordRows = grid => grid.cells.flatMap((cell, i) => cell.map(([word, share], rank) => ({
    row: grid.rows.labels[Math.floor(i / grid.columns.labels.length)], column: grid.columns.labels[i % grid.columns.labels.length],
    rank: rank + 1, word: grid.words[word], share,
  })));
  const arrows = ({ nodes, edges }) => edges.map(e => ({ from: nodes[e.from].name, to: nodes[e.to].name, label: e.label }));
  const csv = (view, figure) => {
    const rows = figure.rows ? figure.rows()
      : view.attention ? attentionRows(view.attention)
      : view.heads ? headRows(view.heads)
      : view.words ? wordRows(view.words)
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
    if (kind === "csv") save(`${name}.csv`, "text/csv", csv(numbersOf(figure), figure));
    if (kind === "json") save(`${name}.json`, "application/json", figure.querySelector("script.numbers").textContent);
  });

  // For the script of a model that is run in the page.
  globalThis.pathsum = { all, numbersOf, drawImage };
})();
