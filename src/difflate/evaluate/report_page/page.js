"use strict";
// What all parts share: the data, elements, numbers as text, and which codecs are drawn.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const hiddenCodecs = new Set();
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (functions listen to events) and children, of which texts are put in as texts. */
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** The number with that many decimals: – for none, ∞ for the PSNR of identical pictures. */
function number(value, places) {
  if (value === null || value === undefined) return "–";
  return value === "inf" ? "∞" : value.toFixed(places);
}

function withUnit(measure, value) {
  return number(value, measure.places) + (measure.unit && value !== null ? ` ${measure.unit}` : "");
}

/** Such as "1 image" of "images". */
function counted(count, things) {
  return `${count} ${count === 1 ? things.slice(0, -1) : things}`;
}

function bytes(count) {
  return `${count.toLocaleString("en-US")} bytes`;
}

/** For sorting: what is missing has no place among the numbers. */
function sortable(value) {
  return value === "inf" ? Infinity : value;
}

function measureIndex(key) {
  return data.measures.findIndex((measure) => measure.key === key);
}

function rateText(rate) {
  return `${rate.toPrecision(2)} bpp`;
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
}

const codecs = [...new Set(data.settings.map((row) => row.codec))];
const curveMeasures = data.measures.filter((measure) => measure.curve);

byId("summary").textContent =
  `${counted(data.images, data.kind)}, ${counted(codecs.length, "codecs")}, ${counted(data.settings.length, "settings")}; ` +
  `difflate ${data.protocol.versions.difflate || ""}`;
