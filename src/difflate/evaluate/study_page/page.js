"use strict";
// Pairs of pictures one after the other, in an order and on sides of this visit's own, and the answers as a file.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const store = `difflate-study-${data.study}`;
const QUESTIONS = { better: "Which picture looks better?", closer: "Which picture is closer to the original?" };
let state = null;
let shownAt = null;
let saved = true;

/** Random numbers from 0 to 1 of a 32-bit seed (mulberry32). */
function randomNumbers(seed) {
  let now = seed >>> 0;
  return () => {
    now = (now + 0x6d2b79f5) >>> 0;
    let t = now;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function begun() {
  const numbers = crypto.getRandomValues(new Uint32Array(3));
  const seed = numbers[0];
  const random = randomNumbers(seed);
  const order = data.trials.map((_, i) => i);
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return {
    seed, session: [...numbers].map((number) => number.toString(16).padStart(8, "0")).join(""),
    order, swapped: order.map(() => random() < 0.5), started: new Date().toISOString(), answers: [],
  };
}

function remember() {
  try {
    localStorage.setItem(store, JSON.stringify(state));
  } catch { /* a browser that keeps nothing: the file is still to be saved */ }
}

function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(store));
    return found?.order?.length === data.trials.length && found.answers.length ? found : null;
  } catch {
    return null;
  }
}

function reveal(trial) {
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(trial.key), (letter) => letter.charCodeAt(0))));
}

function page(name) {
  for (const id of ["start", "trial", "end"]) byId(id).hidden = id !== name;
}

async function next() {
  const place = state.answers.length;
  shownAt = null;
  if (place === data.trials.length) {
    byId("done").textContent = `${place} pairs are decided. Save the answers and give the file to whoever asked you.`;
    page("end");
    byId("save").focus();
    return;
  }
  page("trial");
  const trial = data.trials[state.order[place]];
  const names = state.swapped[place] ? [...trial.pictures].reverse() : trial.pictures;
  byId("progress").max = data.trials.length;
  byId("progress").value = place;
  byId("count").textContent = `${place + 1} of ${data.trials.length}`;
  const pictures = [byId("left"), byId("right")];
  pictures.forEach((picture, side) => {
    picture.style.visibility = "hidden";
    picture.src = data.sources[names[side]];
  });
  await Promise.all(pictures.map((picture) => picture.decode()));
  sizes();
  for (const picture of pictures) picture.style.visibility = "visible"; // both at once
  shownAt = performance.now();
}

/** 1:1 is one pixel of the picture on one of the screen. */
function sizes() {
  const exact = byId("pixels").checked;
  for (const picture of [byId("left"), byId("right")]) {
    picture.parentElement.classList.toggle("pixels", exact);
    picture.style.width = exact ? `${picture.naturalWidth / (window.devicePixelRatio || 1)}px` : "";
  }
}

function choose(side) {
  if (shownAt === null || byId("trial").hidden) return;
  const place = state.answers.length;
  const index = state.order[place];
  const { image, sides } = reveal(data.trials[index]);
  const [left, right] = state.swapped[place] ? [...sides].reverse() : sides;
  const scale = byId("left").getBoundingClientRect().width * (window.devicePixelRatio || 1) / byId("left").naturalWidth;
  state.answers.push({ trial: index, image, left, right, chosen: side, ms: Math.round(performance.now() - shownAt), scale: Math.round(scale * 1000) / 1000 });
  saved = false;
  remember();
  next();
}

function save() {
  const answers = {
    format: "difflate-answers", version: data.version, report: data.report, study: data.study, question: data.question,
    tolerance: data.tolerance, session: state.session, seed: state.seed, started: state.started, ended: new Date().toISOString(),
    trials: data.trials.length, screen: { width: screen.width, height: screen.height, ratio: window.devicePixelRatio || 1 }, answers: state.answers,
  };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(answers, null, 1)}\n`], { type: "application/json" }));
  link.download = "answers.json";
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  saved = true;
  byId("status").textContent = `answers.json has ${state.answers.length} of ${data.trials.length} answers.`;
}

function original(on) {
  if (data.question !== "closer" || shownAt === null) return;
  const place = state.answers.length;
  const trial = data.trials[state.order[place]];
  const names = state.swapped[place] ? [...trial.pictures].reverse() : trial.pictures;
  byId("left").src = data.sources[on ? trial.original : names[0]];
  byId("right").src = data.sources[on ? trial.original : names[1]];
}

const minutes = Math.max(1, Math.round(data.trials.length / 5));
byId("title").textContent = byId("question").textContent = QUESTIONS[data.question];
byId("about").textContent = `${data.trials.length} pairs of pictures, about ${minutes} minute${minutes === 1 ? "" : "s"}. `
  + `The two of a pair come from files of equal size, within ${+(100 * data.tolerance).toFixed(1)} %.`;
for (const part of document.querySelectorAll(".with-original")) part.hidden = data.question !== "closer";
const earlier = remembered();
if (earlier) {
  byId("resume").hidden = false;
  byId("resume").textContent = `Go on after ${earlier.answers.length} of ${data.trials.length}`;
  byId("begin").className = "";
  byId("begin").textContent = "Begin anew"; // the earlier answers are kept until the first new one
  byId("resume").addEventListener("click", () => { state = earlier; next(); });
}
byId("begin").addEventListener("click", () => { state = begun(); next(); });
byId("choose-left").addEventListener("click", () => choose("left"));
byId("choose-right").addEventListener("click", () => choose("right"));
byId("save").addEventListener("click", save);
byId("save-now").addEventListener("click", save);
byId("pixels").addEventListener("change", sizes);
byId("original").addEventListener("pointerdown", () => original(true));
for (const name of ["pointerup", "pointerleave"]) byId("original").addEventListener(name, () => original(false));
const frames = document.querySelectorAll(".frame");
frames.forEach((frame, i) => frame.addEventListener("scroll", () => {
  frames[1 - i].scrollLeft = frame.scrollLeft;
  frames[1 - i].scrollTop = frame.scrollTop;
}));
document.addEventListener("keydown", (event) => {
  const scrolled = byId("pixels").checked && event.target.classList?.contains("frame"); // its arrow keys are its own
  if (scrolled || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowLeft") choose("left");
  else if (event.key === "ArrowRight") choose("right");
  else if (event.key.toLowerCase() === "o") original(true);
});
document.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "o") original(false); });
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
