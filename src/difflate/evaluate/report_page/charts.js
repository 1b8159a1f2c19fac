// Curves of every measure against the rate.

const MARKS = {
  o: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z", s: "M-3.5,-3.5h7v7h-7z", D: "M0,-5l5,5l-5,5l-5,-5z",
  "^": "M0,-5l4.6,8.4h-9.2z", v: "M0,5l4.6,-8.4h-9.2z", P: "M-1.6,-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
  X: "M-4.4,-2.4l2,-2l2.4,2.4l2.4,-2.4l2,2l-2.4,2.4l2.4,2.4l-2,2l-2.4,-2.4l-2.4,2.4l-2,-2l2.4,-2.4z",
  "*": "M0,-5.6l1.5,3.7l4,.3l-3.1,2.6l1,3.9l-3.4,-2.1l-3.4,2.1l1,-3.9l-3.1,-2.6l4,-.3z",
};
const DASHES = { "-": null, "--": "7 4", "-.": "8 3 2 3", ":": "2 3" };
const HEIGHT = 290;
const EDGE = { left: 46, right: 12, top: 10, bottom: 36 };

function curveAttributes(codec) {
  const colour = codec.style.color === "#000000" ? "var(--ink)" : codec.style.color;
  return { class: "curve" + (codec.file ? " open" : ""), style: `--l:${colour}` };
}

function dash(codec) {
  if (codec.file) return "3 3"; // of others
  const line = codec.style.linestyle;
  return typeof line === "string" ? DASHES[line] : line[1].join(" ");
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-12) + 1e-12; i++) found.push([i * step, (i * step).toFixed(places)]);
  return found;
}

/** Round numbers; over a narrow range those of a linear scale. */
function logTicks(low, high) {
  const found = [];
  const wide = Math.log10(high / low) > 1.6;
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of wide ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7]) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push([value, String(Number(value.toPrecision(2)))]);
    }
  }
  return found.length > 1 ? found : ticks(low, high, 3);
}

/** A chart that draws itself anew when its width, the scale or the codecs change. */
function chart(measure) {
  const drawing = svg("svg", { tabindex: 0, role: "img", "aria-label": `${measure.title} against bits per pixel; arrow keys go through the points` });
  const tip = element("div", { class: "tip", role: "status", hidden: true });
  const better = measure.lower ? "lower is better" : "higher is better";
  const unit = measure.in_db ? "dB, −10 log₁₀(1 − x)" : measure.unit;
  const figure = element("figure", { class: "chart" },
    element("figcaption", {}, measure.title, element("span", {}, `${unit ? ` ${unit}` : ""}, ${better}`)), drawing, tip);
  let points = [];
  let current = null;

  function draw() {
    const width = Math.max(260, Math.round(drawing.clientWidth || 420));
    const shown = data.codecs.filter((codec) => !hiddenCodecs.has(codec.name) && codec.curves[measure.key]?.length);
    const all = shown.flatMap((codec) => codec.curves[measure.key]);
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    drawing.replaceChildren();
    points = [];
    show(null);
    if (!all.length) {
      drawing.append(svg("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no codec is drawn"));
      return;
    }
    const log = document.querySelector("input[name=scale]:checked").value === "log";
    const rates = all.map((point) => point[1]);
    const values = all.map((point) => point[2]);
    const [first, last] = [Math.min(...rates), Math.max(...rates)];
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
    [low, high] = [low - pad, high + pad];
    const [left, right] = log ? [first / 1.12, last * 1.12] : [0, last * 1.05];
    const scale = log ? Math.log : (x) => x;
    const x = (rate) => EDGE.left + (scale(rate) - scale(left)) / (scale(right) - scale(left)) * (width - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - (value - low) / (high - low) * (HEIGHT - EDGE.top - EDGE.bottom);

    let free = -Infinity;
    for (const [value, text] of log ? logTicks(left, right) : ticks(left, right, width / 80)) {
      drawing.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
      if (x(value) < free) continue; // its text would touch the last one
      free = x(value) + text.length * 6 + 14;
      drawing.append(svg("text", { x: x(value), y: HEIGHT - EDGE.bottom + 15, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of ticks(low, high, 6)) {
      drawing.append(svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
      drawing.append(svg("text", { x: EDGE.left - 6, y: y(value) + 4, "text-anchor": "end" }, text));
    }
    drawing.append(svg("path", { class: "axis", fill: "none", d: `M${EDGE.left},${EDGE.top}V${HEIGHT - EDGE.bottom}H${width - EDGE.right}` }));
    drawing.append(svg("text", { x: (EDGE.left + width - EDGE.right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "bits per pixel"));
    for (const codec of shown) {
      const line = codec.curves[measure.key];
      const group = svg("g", { ...curveAttributes(codec), "data-codec": codec.name });
      if (line.length > 1) {
        group.append(svg("path", { class: "line", d: "M" + line.map((point) => `${x(point[1])},${y(point[2])}`).join("L"), "stroke-dasharray": dash(codec) }));
      }
      line.forEach((point, i) => {
        const big = line.length < 2 ? " scale(1.5)" : line.length > 12 ? " scale(.7)" : "";
        group.append(svg("path", { class: "mark", d: MARKS[codec.style.marker], transform: `translate(${x(point[1])},${y(point[2])})${big}` }));
        points.push({ codec, point, i, x: x(point[1]), y: y(point[2]), group, width });
      });
      drawing.append(group);
    }
  }

  function show(found) {
    current = found;
    tip.hidden = !found;
    figure.classList.toggle("focus", Boolean(found));
    for (const group of drawing.querySelectorAll(".curve")) group.classList.toggle("on", group === found?.group);
    if (!found) return;
    const { codec, point } = found;
    const raw = withUnit(measure, point[3]) + (measure.in_db ? ` (${point[2].toFixed(2)} dB)` : "");
    tip.replaceChildren(element("b", {}, codec.file ? codec.name : point[0]), `${point[1].toFixed(3)} bpp, ${raw}`,
      codec.file ? element("div", {}, `from ${codec.file}`) : "");
    const [inner, outer] = [drawing.getBoundingClientRect(), figure.getBoundingClientRect()]; // SVG has no offsetTop
    const ratio = inner.width / found.width;
    const place = inner.left - outer.left - figure.clientLeft + found.x * ratio;
    tip.style.top = `${inner.top - outer.top - figure.clientTop + found.y * ratio + 12}px`;
    const onRight = place > figure.clientWidth / 2;
    tip.style.left = onRight ? "auto" : `${place + 10}px`;
    tip.style.right = onRight ? `${figure.clientWidth - place + 10}px` : "auto";
  }

  const follow = (event) => {
    const box = drawing.getBoundingClientRect();
    const ratio = box.width / (points[0]?.width || 1);
    const distance = (p) => Math.hypot(p.x * ratio - (event.clientX - box.left), p.y * ratio - (event.clientY - box.top));
    const nearest = points.reduce((best, p) => (!best || distance(p) < distance(best) ? p : best), null);
    show(nearest && distance(nearest) < 28 ? nearest : null);
  };
  for (const name of ["pointermove", "pointerdown"]) drawing.addEventListener(name, follow);
  // a finger leaves as soon as it is lifted: what it pointed at stays until it points elsewhere
  drawing.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") show(null); });
  drawing.addEventListener("blur", () => show(null));
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 0, ArrowDown: 0 }[event.key];
    if (event.key === "Escape") show(null);
    if (step === undefined || !points.length) return;
    event.preventDefault();
    if (!current) return show(points[0]);
    if (step) return show(points[(points.indexOf(current) + step + points.length) % points.length]);
    const names = [...new Set(points.map((p) => p.codec))];
    const other = names[(names.indexOf(current.codec) + (event.key === "ArrowDown" ? 1 : names.length - 1)) % names.length];
    show(points.find((p) => p.codec === other));
  });
  return { figure, draw, light: (name) => {
    const lit = [...drawing.querySelectorAll(".curve")].find((group) => group.dataset.codec === name);
    figure.classList.toggle("focus", Boolean(lit));
    for (const group of drawing.querySelectorAll(".curve")) group.classList.toggle("on", group === lit);
  } };
}

const charts = curveMeasures.map(chart);
const drawCharts = () => charts.forEach((one) => one.draw());
byId("charts").append(...charts.map((one) => one.figure));
byId("scale").addEventListener("change", drawCharts);
byId("legend").append(...data.codecs.map((codec) => {
  const sample = svg("svg", { width: 26, height: 12, "aria-hidden": true, ...curveAttributes(codec) },
    svg("path", { d: "M1,6H25", stroke: "currentColor", "stroke-width": 1.8, "stroke-dasharray": dash(codec) }),
    svg("path", { d: MARKS[codec.style.marker], transform: "translate(13,6)", fill: codec.file ? "var(--panel)" : "currentColor", stroke: "currentColor" }));
  const light = (on) => charts.forEach((one) => one.light(on ? codec.name : null));
  return element("button", {
    type: "button", "aria-pressed": "true", title: codec.file ? `from ${codec.file}` : "show or hide",
    pointerenter: () => light(true), pointerleave: () => light(false),
    click: (event) => {
      const shown = hiddenCodecs.delete(codec.name);
      if (!shown) hiddenCodecs.add(codec.name);
      event.currentTarget.setAttribute("aria-pressed", String(shown));
      drawCharts();
    },
  }, sample, codec.name);
}));
byId("curves-note").textContent = `Means of each setting over the ${data.kind}; settings without any error are left out. `
  + "Pointing at a curve, or arrow keys on a plot, name the setting."
  + (data.overlays.length ? " Open marks are curves of others, on images, metrics and machines of their own: "
    + data.overlays.map((one) => `${one.name} from ${one.file}${one.text ? ` (${one.text})` : ""}`).join("; ") + "." : "");
new ResizeObserver(drawCharts).observe(byId("charts"));
