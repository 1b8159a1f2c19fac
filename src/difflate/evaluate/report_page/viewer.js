// Images one by one: the worst of a codec first, and two of them on one place with a divider between.

const ORIGINAL = "";
const view = { image: 0, zoom: 0, x: 0.5, y: 0.5, left: null, right: null, crop: null, turn: 0 };
const canvas = byId("canvas");
const divider = byId("divider");

/** The setting of the codec whose file of that image is nearest to so many bytes, of those that can be shown. */
function nearestSetting(image, codec, wanted) {
  const all = data.settings.filter((row) => row.codec === codec && image.settings[row.setting]).map((row) => row.setting);
  const shown = all.filter((setting) => sourceOf(image, setting));
  const distance = (setting) => Math.abs(Math.log(image.settings[setting].bytes / wanted));
  return (shown.length ? shown : all).reduce((best, one) => (best === null || distance(one) < distance(best) ? one : best), null);
}

/** The picture that the page has of it: of a lossless setting the original. */
function sourceOf(image, setting) {
  return setting === ORIGINAL || image.settings[setting].lossless ? image.src : image.settings[setting].src;
}

function bytesAt(image, rate) {
  return rate * image.pixels / 8;
}

const rates = data.rates.length ? data.rates : [1];
const rateEntries = rates.map((rate) => [String(rate), rateText(rate)]);
const middle = String(rates[Math.floor((rates.length - 1) / 2)]);
options(byId("worst-codec"), codecs.map((codec) => [codec, codec]));
options(byId("worst-rate"), rateEntries, middle);
options(byId("worst-measure"), curveMeasures.map((measure) => [measure.key, measure.title]));
options(byId("view-image"), data.shown.map((image, i) => [String(i), image.name]));
options(byId("view-left"), [[ORIGINAL, "original"], ...codecs.map((codec) => [codec, codec])]);
options(byId("view-right"), codecs.map((codec) => [codec, codec]),
  data.codecs.filter((codec) => !codec.file && Object.values(codec.curves).some((line) => line.length)).at(-1)?.name);
options(byId("view-rate"), rateEntries, middle);

function listWorst() {
  const codec = byId("worst-codec").value;
  const rate = Number(byId("worst-rate").value);
  const i = measureIndex(byId("worst-measure").value);
  const measure = data.measures[i];
  const found = data.shown.map((image, number) => {
    const setting = nearestSetting(image, codec, bytesAt(image, rate));
    return { image, number, setting, value: setting && image.settings[setting].values[i] };
  });
  const rank = ({ value }) => (value === null ? Infinity : measure.lower ? -sortable(value) : sortable(value));
  found.sort((a, b) => rank(a) - rank(b) || a.number - b.number);
  byId("worst").replaceChildren(...found.map(({ image, number: place, setting, value }) => {
    const entry = setting && image.settings[setting];
    const source = entry && (sourceOf(image, setting) || entry.file);
    const open = (event) => {
      event.preventDefault();
      byId("view-right").value = codec;
      byId("view-rate").value = byId("worst-rate").value;
      openImage(place, true);
    };
    return element("li", {}, element("a", { href: `#image/${place + 1}`, click: open, "data-image": place },
      source ? element("img", { src: source, alt: "" }) : "",
      element("span", {}, element("b", { title: image.name }, image.name), element("small", {}, setting ? `${withUnit(measure, value)}, ${setting}, ${(8 * entry.bytes / image.pixels).toFixed(2)} bpp` : "not measured"))));
  }));
  markCurrent();
}

function markCurrent() {
  for (const link of byId("worst").querySelectorAll("a")) {
    if (Number(link.dataset.image) === view.image) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

function openImage(number, jump) {
  view.image = (number + data.shown.length) % data.shown.length;
  byId("view-image").value = String(view.image);
  [view.x, view.y] = [0.5, 0.5];
  show();
  imageTable();
  markCurrent();
  if (jump) byId("viewer").scrollIntoView();
  try {
    history.replaceState(null, "", `#image/${view.image + 1}`);
  } catch { /* a page without an address of its own */ }
}

/** What the two sides are now: settings, and the originals' places. */
function sides() {
  const image = data.shown[view.image];
  const wanted = bytesAt(image, Number(byId("view-rate").value));
  const left = byId("view-left").value;
  const first = left === ORIGINAL ? ORIGINAL : nearestSetting(image, left, wanted);
  const same = first ? image.settings[first].bytes : wanted;
  return [first, nearestSetting(image, byId("view-right").value, same)];
}

function load(source) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => resolve(picture);
    picture.onerror = reject;
    picture.src = source;
  });
}

async function show() {
  const turn = ++view.turn;
  const image = data.shown[view.image];
  const settings = sides();
  const entries = settings.map((setting) => (setting === ORIGINAL ? image : setting && image.settings[setting]));
  byId("viewer-title").textContent = image.name;
  captions(image, settings);
  let pictures = [null, null];
  let exact = byId("exact").checked && entries.every((entry) => entry?.file);
  if (exact) {
    try {
      pictures = await Promise.all(entries.map((entry) => load(entry.file)));
    } catch {
      if (turn !== view.turn) return;
      exact = false;
      byId("exact").checked = false;
      byId("exact").disabled = true;
      byId("exact-label").title = "the folder images is not beside this page";
    }
  }
  if (!exact) {
    const sources = settings.map((setting) => (setting === null ? null : sourceOf(image, setting)));
    pictures = await Promise.all(sources.map((source) => (source ? load(source) : null)));
  }
  if (turn !== view.turn) return; // another one was asked for meanwhile
  [view.left, view.right] = pictures;
  view.crop = exact || !image.crop ? [0, 0, image.width, image.height] : image.crop;
  note(image, exact);
  size();
}

function note(image, exact) {
  const part = view.crop[2] < image.width || view.crop[3] < image.height
    ? `the part of ${view.crop[2]} × ${view.crop[3]} px of ${image.width} × ${image.height} where the codecs differ most from the original` : `${image.width} × ${image.height} px`;
  let how = `Exact pixels, from the folder images beside this page: ${part}.`;
  if (!exact) {
    const worst = data.embedded.worst_db;
    how = `Shown re-encoded to keep this page small (AVIF, quality ${data.embedded.quality}, full chroma${typeof worst === "number" ? `; all at ${worst.toFixed(1)} dB or more from the exact pixels` : ""}): ${part}. All numbers are of the exact pixels.`;
  }
  if (!view.right || !view.left) how = image.file ? "This page has no room for pictures of this image; they are in the folder images beside it." : "No pictures were kept.";
  byId("view-note").textContent = how;
}

function captions(image, settings) {
  const sizes = settings.map((setting) => (setting ? image.settings[setting].bytes : null));
  settings.forEach((setting, side) => {
    const name = setting === ORIGINAL ? "original" : setting || "not measured";
    const lines = [element("b", {}, name)];
    if (setting) {
      const entry = image.settings[setting];
      const against = side && sizes[0] ? `, ${percent(entry.bytes / sizes[0])} against the left` : "";
      lines.push(`${bytes(entry.bytes)}, ${(8 * entry.bytes / image.pixels).toFixed(3)} bpp${against}`);
      const texts = data.measures.map((measure, i) => (measure.rate || measure.time ? null : `${measure.title} ${withUnit(measure, entry.values[i])}`));
      lines.push(element("div", {}, texts.filter(Boolean).join(", ")));
    }
    byId(side ? "caption-right" : "caption-left").replaceChildren(...lines);
    byId(side ? "tag-right" : "tag-left").textContent = name;
  });
  canvas.setAttribute("aria-label", `${image.name}: ${settings[0] || "original"} on the left of the divider, ${settings[1] || "nothing"} on the right; arrow keys move the part that is seen`);
  divider.dataset.names = `${settings[0] || "original"} and ${settings[1] || "nothing"}`;
  sayDivider();
}

function percent(ratio) {
  const value = 100 * (ratio - 1);
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)} %`;
}

function sayDivider() {
  divider.setAttribute("aria-valuetext", `${Math.round(divider.value / 10)} % left, between ${divider.dataset.names}`);
}

/** The canvas has one pixel for each of the screen, so that 1:1 is 1:1. */
function size() {
  const [, , width, height] = view.crop || [0, 0, 3, 2];
  const across = byId("view").clientWidth - 2;
  const least = 96; // of a very wide image: room for the names of the two sides
  const most = Math.max(260, window.innerHeight * 0.72);
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${Math.round(Math.max(least, Math.min(most, across * height / width)))}px`;
  canvas.width = Math.round(across * ratio);
  canvas.height = Math.round(parseFloat(canvas.style.height) * ratio);
  draw();
}

function scaleNow() {
  const [, , width, height] = view.crop;
  return view.zoom || Math.min(canvas.width / width, canvas.height / height);
}

function draw() {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!view.left || !view.right) return;
  const [, , width, height] = view.crop;
  const scale = scaleNow();
  const place = (extent, room, at) => Math.round(extent <= room ? (room - extent) / 2 : Math.min(0, Math.max(room - extent, room / 2 - at * extent)));
  const x = place(width * scale, canvas.width, view.x);
  const y = place(height * scale, canvas.height, view.y);
  const split = Math.round(divider.value / 1000 * canvas.width);
  context.imageSmoothingEnabled = scale < 1 || !view.zoom;
  context.imageSmoothingQuality = "high";
  for (const [picture, from, to] of [[view.left, 0, split], [view.right, split, canvas.width]]) {
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, canvas.height);
    context.clip();
    context.drawImage(picture, x, y, Math.round(width * scale), Math.round(height * scale));
    context.restore();
  }
  const thick = Math.max(1, Math.round(window.devicePixelRatio || 1));
  context.fillStyle = "#000";
  context.fillRect(split - 2 * thick, 0, 4 * thick, canvas.height);
  context.fillStyle = "#fff";
  context.fillRect(split - thick, 0, 2 * thick, canvas.height);
  canvas.classList.toggle("pan", pannable());
  sayDivider();
}

function pannable() {
  return Boolean(view.crop) && (view.crop[2] * scaleNow() > canvas.width + 1 || view.crop[3] * scaleNow() > canvas.height + 1);
}

function pan(right, down) {
  const [, , width, height] = view.crop;
  const scale = scaleNow();
  const keep = (at, extent, room) => Math.min(Math.max(at, Math.min(0.5, room / 2 / extent)), Math.max(0.5, 1 - room / 2 / extent));
  view.x = keep(view.x + right / (width * scale), width * scale, canvas.width);
  view.y = keep(view.y + down / (height * scale), height * scale, canvas.height);
  draw();
}

function imageTable() {
  const image = data.shown[view.image];
  const rows = data.settings.filter((row) => image.settings[row.setting]);
  sortableTable(byId("image-table"), [{ title: "setting" }, { title: "bytes" }, ...measureColumns()], rows.map((row, i) => {
    const entry = image.settings[row.setting];
    return { cells: [{ text: row.setting, value: i }, { text: entry.bytes.toLocaleString("en-US"), value: entry.bytes }, ...measureCells(entry.values)] };
  }));
}

function hashImage() {
  const place = Number(location.hash.split("#image/")[1]);
  return Number.isInteger(place) && data.shown[place - 1] ? place - 1 : -1;
}

if (data.kind === "clips") {
  for (const title of [byId("images-title"), document.querySelector("nav a[href='#images']")]) title.textContent = "Clips";
}
if (data.shown.length) {
  for (const id of ["worst-codec", "worst-rate", "worst-measure"]) byId(id).addEventListener("change", listWorst);
  for (const id of ["view-left", "view-right", "view-rate", "exact"]) byId(id).addEventListener("change", show);
  byId("view-image").addEventListener("change", (event) => openImage(Number(event.target.value)));
  byId("previous").addEventListener("click", () => openImage(view.image - 1));
  byId("next").addEventListener("click", () => openImage(view.image + 1));
  byId("zoom").addEventListener("change", (event) => {
    view.zoom = Number(event.target.value);
    pan(0, 0);
  });
  divider.addEventListener("input", draw);
  let dragging = null;
  canvas.addEventListener("pointerdown", (event) => {
    const box = canvas.getBoundingClientRect();
    const near = Math.abs(event.clientX - box.left - divider.value / 1000 * box.width) < 24;
    dragging = { divide: near || !pannable(), x: event.clientX, y: event.clientY };
    canvas.setPointerCapture(event.pointerId);
    if (dragging.divide) move(event);
  });
  const move = (event) => {
    if (!dragging) return;
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    if (dragging.divide) {
      divider.value = Math.round(1000 * (event.clientX - box.left) / box.width);
      draw();
    } else {
      pan((dragging.x - event.clientX) * ratio, (dragging.y - event.clientY) * ratio);
      Object.assign(dragging, { x: event.clientX, y: event.clientY });
    }
  };
  canvas.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { dragging = null; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || !pannable()) return;
    event.preventDefault();
    pan(step[0] * canvas.width / 8, step[1] * canvas.height / 8);
  });
  window.addEventListener("hashchange", () => { if (hashImage() >= 0 && hashImage() !== view.image) openImage(hashImage()); });
  new ResizeObserver(size).observe(byId("view"));
  byId("exact-label").hidden = !data.embedded.kept;
  for (const part of document.querySelectorAll(".pictured")) part.hidden = !data.embedded.kept;
  byId("images-note").textContent = (data.left_out ? `${data.shown.length} ${data.kind} are in this page, the worst of each codec in turn; ${data.left_out} are not. ` : "")
    + "Of each codec the setting whose file is nearest to the chosen rate.";
  const start = hashImage();
  listWorst();
  if (start >= 0) openImage(start, true);
  else {
    view.image = Number(byId("worst").querySelector("a").dataset.image);
    byId("view-image").value = String(view.image);
    show();
    imageTable();
    markCurrent();
  }
} else {
  for (const id of ["images", "viewer"]) byId(id).hidden = true;
  document.querySelector("nav a[href='#images']").hidden = true;
}
