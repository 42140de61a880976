// Shared by the page of explain and the page of the service: attention, contributions, curves.
// Each kind has one scale, which does not depend on what is shown, and a legend.
const charts = (() => {
  const BLUE = "0 114 178", GREEN = "0 158 115", ORANGE = "213 94 0", MOST = 0.65;
  // Contributions far below it are pale, however small the others are.
  const LEAST_LIMIT = 0.1;
  const make = (tag, parent, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (parent) parent.append(element);
    return element;
  };
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const clean = (piece) => piece.replace("▁", "") || "␣";
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
  // By the square root, so that a few per cent can be seen and told from nothing.
  const ofShare = (share) => `rgb(${BLUE} / ${(MOST * Math.sqrt(share)).toFixed(3)})`;
  const ofScore = (score, limit) =>
    `rgb(${score > 0 ? GREEN : ORANGE} / ${(MOST * Math.min(1, Math.abs(score) / limit)).toFixed(3)})`;

  function legend(parent, name, parts) {
    const box = make("div", parent, undefined, {class: "legend"});
    make("span", box, name);
    for (const [colour, text] of parts) make("b", box, text).style.background = colour;
  }

  const legendOfShares = (parent) =>
    legend(parent, "share", [0, 0.05, 0.25, 0.5, 1].map((part) => [ofShare(part), `${100 * part} %`]));

  const limitOf = (scores) => Math.max(LEAST_LIMIT, ...scores.map(Math.abs));
  function legendOfScores(parent, name, limit) {
    const at = (part) => [ofScore(part * limit, limit), signed(part * limit).replace(/^\+0\.000$/, "0")];
    legend(parent, name, [-1, -0.5, 0, 0.5, 1].map(at));
  }

  // Tells a value when its element is pointed at, tapped, or reached with the keyboard.
  function tell(element, readout, text) {
    for (const type of ["pointerenter", "focus", "click"]) {
      element.addEventListener(type, () => { readout.textContent = text(); });
    }
  }

  // The words of an attribution: {output, words: [{word, score}], value, baseline, unit}.
  function words(parent, found) {
    const limit = limitOf(found.words.map(({score}) => score));
    const flow = make("div", parent, undefined, {class: "flow", id: "words"});
    const readout = make("output", parent, "Point at a word, or choose it, for its value.", {class: "readout"});
    for (const {word, score} of found.words) {
      const button = make("button", flow, word, {type: "button", title: signed(score)});
      button.style.background = ofScore(score, limit);
      tell(button, readout, () => `${word}: ${signed(score)} (${found.unit})`);
    }
    legendOfScores(parent, `against ${found.output} … for it (${found.unit})`, limit);
  }

  // Depth and head of what is seen: {layers, heads, attention(d, h, from, to), rollout(d, from, to) or none}.
  function controls(parent, seen, prefix) {
    const box = make("div", parent, undefined, {class: "controls"});
    const ofDepth = make("label", box, "Depth ", {class: "beside"});
    const depth = make("input", ofDepth, undefined, {type: "range", id: `${prefix}depth`, min: 1, max: seen.layers});
    depth.value = seen.layers;
    const out = make("output", ofDepth, "", {id: `${prefix}depth-out`, for: `${prefix}depth`});
    const head = make("select", make("label", box, "Head ", {class: "beside"}), undefined, {id: `${prefix}head`});
    head.append(new Option("all, mean", "mean"), ...(seen.rollout ? [new Option("rollout", "rollout")] : []),
      ...Array.from({length: seen.heads}, (_, h) => new Option(`${h + 1}`, h)));
    const shareOf = (from, to) => {
      const d = depth.value - 1;
      if (head.value === "rollout") return seen.rollout(d, from, to);
      if (head.value !== "mean") return seen.attention(d, +head.value, from, to);
      let sum = 0;
      for (let h = 0; h < seen.heads; h++) sum += seen.attention(d, h, from, to);
      return sum / seen.heads;
    };
    return {depth, head, shareOf, showDepth: () => { out.textContent = `${depth.value} of ${seen.layers}`; }};
  }

  // A row of buttons, of which one is chosen, above a row that is shaded by it; values are told below.
  function rows(parent, prefix, names, targets, sources, shade, tellOf) {
    make("h3", parent, names.target);
    const upper = make("div", parent, undefined, {class: "flow", id: `${prefix}target`});
    make("h3", parent, names.source);
    const lower = make("div", parent, undefined, {class: "flow", id: `${prefix}source`});
    const readout = make("output", parent, "Point at a word of the source, or choose it, for its value.", {class: "readout"});
    let chosen = 0;
    const buttons = targets.map((text) => make("button", upper, text, {type: "button"}));
    const shaded = sources.map((text) => make("button", lower, text, {type: "button"}));
    const show = () => {
      buttons.forEach((button, number) => button.setAttribute("aria-pressed", number === chosen));
      if (targets.length) shaded.forEach((button, number) => shade(button, chosen, number));
    };
    buttons.forEach((button, number) => button.addEventListener("click", () => { chosen = number; show(); }));
    shaded.forEach((button, number) => tell(button, readout, () => tellOf(chosen, number)));
    show();
    return {buttons, show};
  }

  // Cross-attention: {target, source, targetName, sourceName, layers, heads, attention(d, h, from, to)}.
  function cross(parent, seen) {
    const {depth, head, showDepth, shareOf} = controls(parent, seen, "cross-");
    const targets = seen.target.map(clean), sources = seen.source.map(clean);
    const {show} = rows(parent, "cross-", {target: seen.targetName, source: seen.sourceName}, targets, sources, (button, from, to) => {
      button.style.background = ofShare(shareOf(from, to));
      button.title = percent(shareOf(from, to));
    }, (from, to) => `${targets[from]} gives ${percent(shareOf(from, to))} of its attention to ${sources[to]}.`);
    const update = () => { showDepth(); show(); };
    for (const control of [depth, head]) control.addEventListener("input", update);
    update();
    legendOfShares(parent);
  }

  // What each target word loses without each source word: {targetWords, sourceWords, logProbs, scores}.
  function pairWords(parent, found) {
    const limit = limitOf(found.scores.flat());
    const {buttons} = rows(parent, "words-", {target: "Target, with the probability of each word", source: "Source"},
      found.targetWords, found.sourceWords, (button, from, to) => {
        button.style.background = ofScore(found.scores[from][to], limit);
        button.title = signed(found.scores[from][to]);
      }, (from, to) => `Without ${found.sourceWords[to]}, the log-probability of ${found.targetWords[from]} changes by ` +
        `${signed(-found.scores[from][to])} (nats).`);
    buttons.forEach((button, number) => make("small", button, percent(Math.exp(found.logProbs[number]))));
    legendOfScores(parent, "against the chosen word … for it (nats)", limit);
  }

  // Attention with its controls: {pieces, layers, heads, attention(d, h, from, to), rollout(d, from, to)}.
  function attention(parent, seen) {
    let chosen = 0;
    const {depth, head, showDepth, shareOf} = controls(parent, seen, "");
    const share = (to) => shareOf(chosen, to);
    const flow = make("div", parent, undefined, {class: "flow", id: "pieces"});
    const readout = make("output", parent, "", {class: "readout"});
    const sentence = (to) => {
      const [from, other] = [clean(seen.pieces[chosen]), clean(seen.pieces[to])];
      return head.value === "rollout" ? `${percent(share(to))} of what has reached ${from} is from ${other}.`
        : `${from} gives ${percent(share(to))} of its attention to ${other}.`;
    };
    const buttons = seen.pieces.map((piece, number) => {
      const button = make("button", flow, clean(piece), {type: "button"});
      button.addEventListener("click", () => { chosen = number; shade(); });
      tell(button, readout, () => sentence(number));
      return button;
    });
    function shade() {
      showDepth();
      buttons.forEach((button, number) => {
        button.style.background = ofShare(share(number));
        button.title = percent(share(number));
        button.setAttribute("aria-pressed", number === chosen);
      });
      readout.textContent = `Chosen: ${clean(seen.pieces[chosen])}. Point at a piece for its value.`;
    }
    depth.addEventListener("input", shade);
    head.addEventListener("input", shade);
    legendOfShares(parent);
    shade();
  }

  // Round numbers from below the lowest to above the highest value.
  function ticks(values) {
    const high = Math.max(...values), least = Math.min(...values);
    const low = least > high / 2 && high > least ? least : 0;
    const rough = (high - low || high || 1) / 3, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    const first = Math.floor(low / step), last = Math.max(Math.ceil(high / step), first + 1);
    return Array.from({length: last - first + 1}, (_, n) => +((first + n) * step).toPrecision(6));
  }

  // Values by layer, drawn in the pixels that there are, so that text keeps its size.
  function curve(parent, values, {colour, name, unit}) {
    const title = unit ? `${name} (${unit})` : name, told = (n) => `Layer ${n + 1}: ${name} ${values[n].toPrecision(3)} ${unit}`;
    if (values.length === 1) { make("p", parent, `${told(0)}.`); return; }
    const box = make("div", parent, undefined, {class: "curve"});
    const readout = make("output", parent, "Point at a layer for its value.", {class: "readout"});
    const add = (svg, kind, attributes, text) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      if (text !== undefined) element.textContent = text;
      svg.append(element);
      return element;
    };
    function draw() {
      const width = box.clientWidth, height = 220, left = 52, right = 12, top = 26, bottom = 44;
      const marks = ticks(values), [low, high] = [marks[0], marks.at(-1)];
      const x = (n) => left + n / (values.length - 1) * (width - left - right);
      const y = (v) => top + (high - v) / (high - low) * (height - top - bottom);
      const svg = add(box, "svg", {width, height, role: "img", "aria-label": `${title} by layer`});
      add(svg, "text", {x: 0, y: 13}, title);
      for (const mark of marks) {
        add(svg, "path", {d: `M${left} ${y(mark)}H${width - right}`, class: "line"});
        add(svg, "text", {x: left - 8, y: y(mark) + 4, "text-anchor": "end"}, `${mark}`);
      }
      const every = Math.ceil(values.length * 26 / (width - left - right));
      values.forEach((_, n) => { if (n % every === 0) add(svg, "text", {x: x(n), y: height - 24, "text-anchor": "middle"}, `${n + 1}`); });
      add(svg, "text", {x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle"}, "layer");
      add(svg, "path", {d: values.map((v, n) => `${n ? "L" : "M"}${x(n)} ${y(v)}`).join(""), fill: "none", stroke: colour, "stroke-width": 2});
      values.forEach((v, n) => {
        const point = add(svg, "circle", {cx: x(n), cy: y(v), r: 5, fill: colour, tabindex: 0});
        add(point, "title", {}, told(n));
        tell(point, readout, () => `${told(n)}.`);
      });
    }
    new ResizeObserver(() => { box.replaceChildren(); draw(); }).observe(box);
  }
  return {make, percent, clean, words, attention, cross, pairWords, curve};
})();
