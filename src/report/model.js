// A model that the page carries: run again with other tokens, or with heads ablated. What is computed comes from the
// WebAssembly module; here it is asked for, and drawn.
"use strict";
(() => {
  const { all, numbersOf, drawImage } = globalThis.pathsum;
  const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const text = new TextDecoder(), utf8 = new TextEncoder();
  // The module with a model in it: from tokens and ablated heads to logits and patterns.
  const loaded = async ({ config, weights, tokens, answers, heads }) => {
    const { instance: { exports: module } } = await WebAssembly.instantiate(bytesOf(document.getElementById("module").textContent));
    const call = (name, input, ...rest) => {
      const at = module.pathsum_input(input.length);
      new Uint8Array(module.memory.buffer, at, input.length).set(input);
      const failed = module[name](...rest), from = module.pathsum_output();
      const output = module.memory.buffer.slice(from, from + module.pathsum_output_len());
      if (failed) throw new Error(text.decode(output));
      return new Float64Array(output);
    };
    const [first, second] = [utf8.encode(config), bytesOf(weights)], input = new Uint8Array(first.length + second.length);
    input.set(first);
    input.set(second, first.length);
    call("pathsum_load", input, first.length);
    const n = tokens.length, logits = answers.length;
    return (tokens, ablated) => {
      const values = call("pathsum_run", utf8.encode(JSON.stringify({ tokens, ablated })));
      return {
        logits: position => values.subarray(position * logits, (position + 1) * logits),
        pattern: (layer, head, query, key) => values[n * logits + ((layer * heads + head) * n + query) * n + key],
      };
    };
  };
  const probabilities = logits => {
    const most = Math.max(...logits), exps = Array.from(logits, x => Math.exp(x - most)), sum = exps.reduce((a, b) => a + b);
    return exps.map(x => x / sum);
  };
  const percent = p => p < .0005 ? "below 0.1%" : p > .9995 ? "over 99.9%" : `${(100 * p).toFixed(1)}%`;
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  const start = async view => {
    const figure = view.closest("figure"), { model } = numbersOf(figure), n = model.tokens.length;
    const place = name => view.querySelector(name), position = place("[data-choice=position]"), said = place(".said");
    const [word, answer] = [model.words, model.answers].map(names => i => names[i].trim() || names[i]);
    const heads = Array.from({ length: model.layers * model.heads }, (_, i) => [Math.floor(i / model.heads), i % model.heads]);
    const run = await loaded(model), before = run(model.tokens, []);
    let tokens = [...model.tokens], ablated = new Set(), now = before, here = "";

    // ---- What the reader chooses
    const selects = tokens.map((_, i) => {
      const select = make("select", { autocomplete: "off" },
        ...Array.from({ length: model.words.length }, (_, token) => make("option", { value: token, textContent: word(token) })));
      select.setAttribute("aria-label", `token at position ${i}`);
      select.dataset.tip = `position ${i}; as it was: ${word(model.tokens[i])}`;
      select.addEventListener("change", () => { tokens[i] = Number(select.value); changed(); });
      return select;
    });
    place(".tokens").replaceChildren(...selects);
    const toggle = name => { if (!ablated.delete(name)) ablated.add(name); changed(); };
    const buttons = heads.map(([layer, head]) => {
      const name = `${layer}.${head}`, button = make("button", { type: "button" });
      button.addEventListener("click", () => toggle(name));
      return button;
    });
    const cards = buttons.map(button => make("div", { className: "card" }, button));
    place(".panels").replaceChildren(...cards);
    position.addEventListener("change", () => changed());
    place("[data-reset]").addEventListener("click", () => {
      [tokens, ablated, position.value] = [[...model.tokens], new Set(), model.position];
      changed();
    });

    // ---- The state as a link: #tokens=3,1,4&ablate=0.1&position=2
    const fromLink = () => {
      const link = new URLSearchParams(location.hash.slice(1));
      if (!link.has("tokens") || location.hash === here) return false;
      const numbers = link.get("tokens").split(",").map(Number), names = link.get("ablate")?.split(",") ?? [];
      const fits = numbers.length === n && numbers.every(t => Number.isInteger(t) && t >= 0 && t < model.words.length)
        && names.every(name => heads.some(([l, h]) => name === `${l}.${h}`));
      if (!fits) {
        said.textContent = `The link is not of this page's model: expected ${n} tokens below ${model.words.length}, and heads like 0.0.`;
        return false;
      }
      [tokens, ablated] = [numbers, new Set(names)];
      position.value = link.get("position") ?? model.position;
      if (position.selectedIndex < 0) position.value = model.position;
      return true;
    };
    const toLink = () => {
      here = `#tokens=${tokens.join(",")}`;
      if (ablated.size) here += `&ablate=${[...ablated].sort().join(",")}`;
      if (Number(position.value) !== model.position) here += `&position=${position.value}`;
      location.replace(here);
    };

    // ---- What is computed
    const draw = () => {
      const at = Number(position.value);
      selects.forEach((select, i) => {
        select.value = tokens[i];
        select.classList.toggle("changed", tokens[i] !== model.tokens[i]);
      });
      const words = tokens.map(word);
      heads.forEach(([layer, head], i) => {
        const name = `${layer}.${head}`, off = ablated.has(name);
        const weight = (query, key) => model.causal && key > query ? null : now.pattern(layer, head, query, key);
        const panel = drawImage(`head ${name}`, words, weight, 1, () => toggle(name), 150);
        panel.mark(at);
        cards[i].classList.toggle("off", off);
        buttons[i].setAttribute("aria-pressed", off);
        buttons[i].textContent = off ? `${name} ablated` : `ablate ${name}`;
        // The button stays in its place, and with it the keyboard's focus.
        if (cards[i].children.length > 1) cards[i].firstChild.remove();
        cards[i].prepend(panel);
      });
      const [logits, was] = [now.logits(at), before.logits(at)], [shares, shared] = [logits, was].map(probabilities);
      const most = values => values.indexOf(Math.max(...values)), all = [...logits.keys()], few = 12;
      const listed = all.length <= few ? all
        : all.sort((a, b) => Math.max(shares[b], shared[b]) - Math.max(shares[a], shared[a])).slice(0, few);
      const number = (value, said) => make("td", { className: "number", title: value, textContent: said });
      const row = i => {
        const share = number(shares[i], percent(shares[i]));
        share.style.setProperty("--p", 100 * shares[i]);
        share.classList.add("share");
        const cells = [make("td", {}, make("code", { textContent: answer(i) })), number(logits[i], logits[i].toFixed(4)),
          number(was[i], was[i].toFixed(4)), share, number(shared[i], percent(shared[i]))];
        return make("tr", {}, ...cells);
      };
      const heading = ["answer", "logit", "as it was", "probability", "as it was"].map((name, i) => make("th", { textContent: name, className: i ? "number" : "" }));
      place(".wide").replaceChildren(make("table", { className: "numbers" },
        make("thead", {}, make("tr", {}, ...heading)), make("tbody", {}, ...listed.map(row))));
      const [first, second] = [most(shares), most(shared)];
      said.textContent = `After position ${at}: ${answer(first)}, ${percent(shares[first])}` +
        (now === before ? "." : ` (as it was: ${answer(second)}, ${percent(shared[second])}).`);
    };
    const changed = () => {
      const began = performance.now();
      const same = !ablated.size && tokens.every((token, i) => token === model.tokens[i]);
      now = same ? before : run(tokens, [...ablated].map(name => name.split(".").map(Number)));
      draw();
      view.dataset.took = performance.now() - began;
      toLink();
    };
    // Every logit, and every weight that a token sees.
    figure.rows = () => {
      const rows = [], head = (layer, head) => `${layer}.${head}`;
      for (let p = 0; p < n; p++) now.logits(p).forEach((value, i) => rows.push({ what: "logit", position: p, of: answer(i), value }));
      for (const [l, h] of heads) for (let q = 0; q < n; q++) for (let k = 0; k < n; k++)
        if (!model.causal || k <= q) rows.push({ what: `pattern ${head(l, h)}`, position: q, of: k, value: now.pattern(l, h, q, k) });
      return rows;
    };
    addEventListener("hashchange", () => { if (fromLink()) changed(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    draw();
    if (fromLink()) {
      changed();
      figure.scrollIntoView();
    }
    view.dataset.ready = "";
  };
  for (const view of all(document, ".rerun")) start(view).catch(error => {
    view.querySelector(".said").textContent = `The model cannot be run in this browser: ${error.message}`;
  });
})();
