// Tables: means that sort, BD-rates of all pairs, times, the protocol.

/**
 * Fills a table whose columns sort: `columns` have title, small (a second line), text (they sort as texts), and the
 * direction they begin with; `rows` are lists of {text, value, node}.
 */
function sortableTable(table, columns, rows) {
  const body = element("tbody");
  const heads = columns.map((column, i) => element("th", { scope: "col", "aria-sort": "none" },
    element("button", { type: "button", click: () => sort(i) }, column.title), column.small ? element("small", {}, column.small) : ""));

  function sort(i) {
    const now = heads[i].getAttribute("aria-sort");
    const down = now === "none" ? Boolean(columns[i].down) : now === "ascending";
    heads.forEach((head, j) => head.setAttribute("aria-sort", j !== i ? "none" : down ? "descending" : "ascending"));
    const order = rows.slice().sort((a, b) => {
      const [x, y] = [a.cells[i].value, b.cells[i].value];
      if (x === y || (x == null && y == null)) return 0;
      if (x == null || y == null) return x == null ? 1 : -1; // what has no value stands last either way
      return (x < y ? -1 : 1) * (down ? -1 : 1);
    });
    body.append(...order.map((row) => row.line));
  }

  for (const row of rows) {
    row.line = element("tr", {}, ...row.cells.map((cell, j) => element(j ? "td" : "th", j ? {} : { scope: "row", title: cell.text }, cell.node || cell.text)));
  }
  body.append(...rows.map((row) => row.line));
  table.replaceChildren(element("thead", {}, element("tr", {}, ...heads)), body);
}

function measureColumns() {
  return data.measures.map((measure) => ({ title: measure.title, small: measure.unit, down: !measure.lower && !measure.rate && !measure.time }));
}

function measureCells(values) {
  return data.measures.map((measure, i) => ({ text: number(values[i], measure.places), value: sortable(values[i]) }));
}

sortableTable(byId("settings-table"), [{ title: "setting" }, { title: data.kind }, ...measureColumns()],
  data.settings.map((row, i) => ({ cells: [
    { text: row.setting, value: i },
    { text: row.failed ? `${row.images} of ${row.images + row.failed}` : String(row.images), value: row.images },
    ...measureCells(row.values),
  ] })));
const partly = data.settings.filter((row) => row.lossless && row.lossless < row.images);
const fewer = data.measures.map((measure, i) => {
  const row = data.settings.find(({ images, counts }) => counts[i] && counts[i] < images);
  return row && !measure.infinite ? `${measure.title} is over ${row.counts[i]} of ${row.images} ${data.kind}, the rate over all; the others are too small for it. ` : "";
});
byId("settings-note").textContent = fewer.join("") + (partly.length
  ? `PSNR is over the ${data.kind} with an error; restored without one: ${partly.map((row) => `${row.setting} (${row.lossless})`).join(", ")}.` : "");

function bdTable() {
  const measure = data.measures[measureIndex(byId("bd-measure").value)];
  const rows = data.bd.rates[measure.key];
  const names = Object.keys(rows);
  const unit = measure.drawn_unit ? ` ${measure.drawn_unit}` : "";
  const places = measure.in_db ? 1 : Math.max(0, measure.places - 1);
  byId("bd-table").replaceChildren(
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "codec / against"), ...names.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...names.map((codec) => element("tr", {}, element("th", { scope: "row", title: codec }, codec), ...names.map((anchor) => {
      if (anchor === codec) return element("td", { class: "none" }, "·");
      const cell = rows[anchor][codec];
      if (typeof cell === "string") return element("td", { class: "none", title: cell }, "–", element("small", {}, reason(cell)));
      const [rate, low, high, share] = cell;
      const text = `${rate > 0 ? "+" : rate < 0 ? "−" : ""}${Math.abs(rate).toFixed(1)} %`;
      return element("td", { class: rate < 0 ? "good" : rate > 0 ? "bad" : "none" }, text,
        element("small", {}, `${low.toFixed(places)}–${high.toFixed(places)}${unit}, ${Math.round(100 * share)} %`));
    })))));
  if (names.length < 2) byId("bd-table").replaceChildren(element("tbody", {}, element("tr", {}, element("td", {}, "No two codecs have the four settings that a BD-rate needs."))));
}

function reason(text) {
  if (text.includes("no quality in common")) return "no common quality";
  if (text.includes("not all images")) return "of different images";
  return text.includes("does not rise") ? "does not rise" : "not comparable";
}

options(byId("bd-measure"), curveMeasures.map((measure) => [measure.key, measure.title]));
byId("bd-measure").addEventListener("change", bdTable);
bdTable();
byId("bd-note").textContent = "Mean difference of the rate at equal quality of a row's codec against a column's; negative: fewer bits. Below it "
  + "the qualities that both curves have, which the mean is over, and what part of both curves' range that is: of a small part a BD-rate says little."
  + (data.bd.bpp_range ? ` Only over the qualities that the column's codec has from ${data.bd.bpp_range[0]} to ${data.bd.bpp_range[1]} bpp.` : "")
  + (data.overlays.length ? " Those with curves of others compare means of different runs." : "");

const timeMeasures = data.measures.filter((measure) => measure.time);
sortableTable(byId("times-table"), [{ title: "codec" }, { title: "settings" },
  ...timeMeasures.flatMap((measure) => [{ title: measure.title, small: "mean, s" }, { title: measure.title, small: "fastest to slowest setting, s" }])],
  codecs.map((codec, i) => {
    const rows = data.settings.filter((row) => row.codec === codec && row.images);
    const cells = timeMeasures.flatMap((measure) => {
      const times = rows.map((row) => row.values[measureIndex(measure.key)]).filter((value) => value !== null);
      if (!times.length) return [{ text: "–", value: null }, { text: "–", value: null }];
      const mean = times.reduce((a, b) => a + b) / times.length;
      const [low, high] = [Math.min(...times), Math.max(...times)];
      return [{ text: mean.toFixed(3), value: mean }, { text: `${low.toFixed(3)} – ${high.toFixed(3)}`, value: high }];
    });
    return { cells: [{ text: codec, value: i }, { text: String(rows.length), value: rows.length }, ...cells] };
  }));
const { jobs, peak_memory_bytes: peak } = data.protocol;
byId("memory").textContent = `Wall seconds for one of the ${data.kind}, each codec having run once before; ${data.protocol.machine}. `
  + (jobs ? `${jobs} workers of one thread each measured at once: these times do not compare with those of other runs. ` : "")
  + (peak ? `Peak memory: ${(peak / 2 ** 20).toFixed(0)} MiB resident, of the process that measured, with all codecs, models and metrics together; `
    + "it does not tell one codec from another, and of several processes it is the largest one's." : "Peak memory is not known on this system.");

{
  const { command, versions, definitions } = data.protocol;
  const anchor = data.protocol.bd_anchor;
  byId("protocol-body").append(
    ...(command ? [element("p", {}, "Command:"), element("pre", {}, command)] : []),
    element("dl", {}, ...[
      ["versions", Object.entries(versions).map((pair) => pair.join(" ")).join(", ")],
      ["machine", data.protocol.machine],
      ["anchor", `${anchor}, of the BD-rates in results.md${data.protocol.bpp_range ? `, from ${data.protocol.bpp_range.join(" to ")} bpp` : ""}`],
      ...Object.entries(definitions),
    ].flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)])));
  if (data.failures.length) {
    byId("protocol-body").append(element("p", {}, "Not measured:"),
      element("ul", {}, ...data.failures.map((line) => element("li", {}, line))));
  }
}
