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

  // Tells a value when its element is pointed at, tapped, or reached with the keyboard.
  function tell(element, readout, text) {
    for (const type of ["pointerenter", "focus", "click"]) {
      element.addEventListener(type, () => { readout.textContent = text(); });
    }
  }

  // The words of an attribution: {output, words: [{word, score}], value, baseline, unit}.
  function words(parent, found) {
    const limit = Math.max(LEAST_LIMIT, ...found.words.map(({score}) => Math.abs(score)));
    const flow = make("div", parent, undefined, {class: "flow", id: "words"});
    const readout = make("output", parent, "Point at a word, or choose it, for its value.", {class: "readout"});
    for (const {word, score} of found.words) {
      const button = make("button", flow, word, {type: "button", title: signed(score)});
      button.style.background = ofScore(score, limit);
      tell(button, readout, () => `${word}: ${signed(score)} (${found.unit})`);
    }
    const at = (part) => [ofScore(part * limit, limit), signed(part * limit).replace(/^\+0\.000$/, "0")];
    legend(parent, `against ${found.output} … for it (${found.unit})`, [-1, -0.5, 0, 0.5, 1].map(at));
  }

  // Attention with its controls: {pieces, layers, heads, attention(d, h, from, to), rollout(d, from, to)}.
  function attention(parent, seen) {
    let chosen = 0;
    const controls = make("div", parent, undefined, {class: "controls"});
    const ofDepth = make("label", controls, "Depth ", {class: "beside"});
    const depth = make("input", ofDepth, undefined, {type: "range", id: "depth", min: 1, max: seen.layers});
    depth.value = seen.layers;
    const depthOut = make("output", ofDepth, "", {id: "depth-out", for: "depth"});
    const head = make("select", make("label", controls, "Head ", {class: "beside"}), undefined, {id: "head"});
    head.append(new Option("all, mean", "mean"), new Option("rollout", "rollout"),
      ...Array.from({length: seen.heads}, (_, h) => new Option(`${h + 1}`, h)));
    const share = (to) => {
      const d = depth.value - 1;
      if (head.value === "rollout") return seen.rollout(d, chosen, to);
      if (head.value !== "mean") return seen.attention(d, +head.value, chosen, to);
      let sum = 0;
      for (let h = 0; h < seen.heads; h++) sum += seen.attention(d, h, chosen, to);
      return sum / seen.heads;
    };
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
      depthOut.textContent = `${depth.value} of ${seen.layers}`;
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
  return {make, percent, clean, ofShare, legendOfShares, words, attention, curve};
})();
