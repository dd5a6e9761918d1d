// The pages beside erasing: reports of trainings, and what networks cost.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, action] of Object.entries(value)) element.addEventListener(event, action);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function amount(value, unit = "") {
  const steps = [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]];
  const [suffix, size] = steps.find(([, least]) => value >= least) || ["", 1];
  const text = (value / size).toPrecision(3);
  return `${size === 1 ? value : Number(text)} ${suffix}${unit}`.trim();
}

export async function showReports(ask, open) {
  const view = byId("report-view");
  const list = byId("reports");
  view.hidden = !open;
  list.hidden = Boolean(open);
  byId("reports-title").hidden = Boolean(open);
  byId("reports-none").hidden = true;
  if (open) {
    byId("report").src = `/api/reports/${encodeURIComponent(open)}`;
    return;
  }
  byId("report").removeAttribute("src");
  const { reports } = await ask("GET", "/api/reports");
  byId("reports-none").hidden = reports.length > 0;
  list.replaceChildren(...reports.map((report) => {
    const metrics = Object.entries(report.metrics || {}).slice(0, 3).map(([name, value]) => `${name} ${Number(value).toPrecision(4)}`);
    const when = new Date(report.time * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    return make("li", {}, make("a", { href: `#reports/${report.id}` }, report.title, make("span", { class: "quiet" }, [...metrics, when].join(" · "))));
  }));
}

let namesAsked = false;

export async function showCosts(ask) {
  if (namesAsked) return;
  namesAsked = true;
  const { models } = await ask("GET", "/api/models");
  byId("models").replaceChildren(...models.map((name) => make("option", { value: name })));
}

export function profileOrder(form) {
  const text = (name) => form.elements[name].value.trim();
  const numbers = (value, sign) => (value ? value.split(sign).map(Number) : []);
  return { model: text("model"), shape: numbers(text("shape"), "x"), bits: numbers(text("bits"), "/"), budget: text("budget") };
}

export function showProfile(job) {
  const { used, limits, layers, input, bits } = job.result;
  const names = { macs: ["Multiply-adds", ""], params: ["Parameters", ""], bytes: ["Bytes", "B"], bitops: ["Bit operations", ""] };
  byId("profile-title").textContent = `${job.title}, ${input.join(" x ")}${bits.length ? `, ${bits.join("/")} bits` : ""}`;
  byId("profile-cards").replaceChildren(...Object.entries(names).map(([key, [name, unit]]) => {
    const limit = limits[key];
    const fits = limit === undefined || used[key] <= limit;
    const said = limit === undefined ? "no limit" : `${fits ? "within" : "over"} ${amount(limit, unit)} (${Math.round((100 * used[key]) / limit)} %)`;
    return make("div", { class: "card" },
      make("div", { class: "quiet" }, name),
      make("div", { class: "value" }, amount(used[key], unit)),
      make("div", { class: fits ? "quiet" : "bad" }, said));
  }));
  const rows = layers.filter((layer) => layer.macs);
  const most = Math.max(...rows.map((layer) => layer.macs), 1);
  byId("profile-rows").replaceChildren(...rows.map((layer) => make("tr", {},
    make("td", {}, layer.name || "(network)"),
    make("td", {}, layer.kind),
    make("td", { class: "num" }, amount(layer.macs)),
    make("td", {}, make("meter", { min: 0, max: most, value: layer.macs, "aria-label": `${((100 * layer.macs) / used.macs).toFixed(1)} % of the multiply-adds` })),
    make("td", { class: "num" }, amount(layer.params)))));
  byId("profile-result").hidden = false;
}
