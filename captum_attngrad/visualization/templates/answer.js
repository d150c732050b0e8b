"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const options = [...document.querySelectorAll("#answer [role=option]")];
  const spans = [...document.querySelectorAll("#prompt [data-token]")];
  const list = document.getElementById("features");
  const note = document.getElementById("note");
  const MIN_SHARE = 0.05, SHOWN = 100;
  let chosen = new Set(), anchor = 0, all = false;

  // Rows of scores are 16-bit whole numbers, each row with a factor of its own.
  const decode = (rows) => rows.map(({ factor, values }) => {
    const bytes = Uint8Array.from(atob(values), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 },
      (_, i) => view.getInt16(2 * i, true) * factor);
  });
  const tokens = decode(data.tokens), features = decode(data.features);

  // The whole answer is the first row; the tokens of the answer follow.
  const total = (rows) => {
    if (!chosen.size) return rows[0];
    const sum = new Float32Array(rows[0].length);
    for (const t of chosen) rows[t + 1].forEach((score, i) => { sum[i] += score; });
    return sum;
  };
  const peak = (scores) => scores.reduce((most, s) => Math.max(most, Math.abs(s)), 0);
  const signed = (score) => (score < 0 ? "−" : "+") + Math.abs(score).toPrecision(3);

  function paint(element, score, most) {
    const strength = most > 0 ? Math.abs(score) / most : 0;
    element.className = strength < MIN_SHARE ? "" : score > 0 ? "for" : "against";
    element.style.setProperty("--s", strength.toFixed(2));
    element.title = signed(score);
  }

  function bar(index, score, most) {
    const item = document.createElement("li");
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = data.names[index];
    name.title = data.names[index];
    const value = document.createElement("span");
    value.className = "value";
    value.textContent = signed(score);
    const line = document.createElement("span");
    line.className = score < 0 ? "bar against" : "bar for";
    line.style.width = (most > 0 ? (100 * Math.abs(score)) / most : 0) + "%";
    item.append(name, value, line);
    return item;
  }

  function show() {
    const ofTokens = total(tokens), ofFeatures = total(features);
    const most = peak(spans.map((span) => ofTokens[span.dataset.token]));
    const mostOfFeatures = peak(ofFeatures);
    const vanished = most < data.least;
    spans.forEach((span) =>
      paint(span, vanished ? 0 : ofTokens[span.dataset.token], vanished ? 0 : most));
    const order = [...ofFeatures.keys()].sort((a, b) => ofFeatures[b] - ofFeatures[a]);
    const some = all || order.length <= SHOWN
      ? order : [...order.slice(0, SHOWN / 2), ...order.slice(-SHOWN / 2)];
    list.replaceChildren(...some.map((i) => bar(i, ofFeatures[i], mostOfFeatures)));
    if (some.length < order.length) {
      const item = document.createElement("li"), more = document.createElement("button");
      more.type = "button";
      more.textContent = `Show all ${order.length}`;
      more.addEventListener("click", () => { all = true; show(); });
      item.append(more);
      list.append(item);
    }
    options.forEach((option, t) =>
      option.setAttribute("aria-selected", String(chosen.has(t))));
    const what = !chosen.size ? "the whole answer" : chosen.size === 1
      ? `“${options[[...chosen][0]].textContent.trim()}”` : `${chosen.size} tokens`;
    note.textContent = vanished
      ? `The scores of ${what} have vanished: the model is as good as sure of it.`
      : `Shown: what ${what} rested on. Strongest: ${signed(most)} (${data.unit}).`;
  }

  function choose(t, extend) {
    if (tokens.length < 2) return;
    if (extend) {
      const [low, high] = [Math.min(anchor, t), Math.max(anchor, t)];
      chosen = new Set(Array.from({ length: high - low + 1 }, (_, i) => low + i));
    } else {
      const again = chosen.size === 1 && chosen.has(t);
      chosen = again ? new Set() : new Set([t]);
      anchor = t;
    }
    show();
  }

  function focus(t) {
    options.forEach((option, i) => { option.tabIndex = i === t ? 0 : -1; });
    options[t].focus();
  }

  options.forEach((option, t) => {
    option.addEventListener("click", (event) => { focus(t); choose(t, event.shiftKey); });
    option.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const end = { Home: 0, End: options.length - 1 }[event.key];
      if (event.key === "Enter" || event.key === " ") choose(t, event.shiftKey);
      else if (event.key === "Escape") { chosen = new Set(); show(); }
      else if (step !== undefined || end !== undefined) {
        const next = end ?? Math.min(options.length - 1, Math.max(0, t + step));
        focus(next);
        if (event.shiftKey) choose(next, true);
      } else return;
      event.preventDefault();
    });
  });
  document.getElementById("whole")?.addEventListener("click", () => {
    chosen = new Set();
    show();
  });
  show();
})();
