// Rates and percentiles from the counters of each event: what came in the last ten seconds.
const WINDOW = 10;
let samples = [];
let rates = [];
let shownGeneration = null;

const sum = (counts) => counts.reduce((all, count) => all + count, 0);
const milliseconds = (value) => (value === null ? "–" : value < 10 ? `${value.toFixed(1)} ms` : value < 10000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
const perSecond = (value) => (value >= 100 ? Math.round(value).toLocaleString() : value.toFixed(1));

// By linear interpolation within a bucket, as Prometheus' histogram_quantile.
const quantile = (share, bounds, buckets) => {
  const all = buckets[buckets.length - 1] || 0;
  if (!all) return null;
  const rank = share * all;
  const at = buckets.findIndex((count) => count >= rank);
  if (at >= bounds.length) return bounds[bounds.length - 1];
  const below = at ? buckets[at - 1] : 0;
  const start = at ? bounds[at - 1] : 0;
  const here = buckets[at] - below;
  return here ? start + ((bounds[at] - start) * (rank - below)) / here : bounds[at];
};

const between = (before, now) => {
  const seconds = Math.max(0.001, (now.uptime_ms - before.uptime_ms) / 1000);
  const rows = Object.entries(now.services).map(([name, service]) => {
    const old = before.services[name] || { codes: {}, buckets: [] };
    const codes = Object.entries(service.codes).map(([code, count]) => [code, Math.max(0, count - (old.codes[code] || 0))]);
    const of = (first) => sum(codes.filter(([code]) => code.startsWith(first)).map(([, count]) => count));
    const buckets = service.buckets.map((count, at) => Math.max(0, count - (old.buckets[at] || 0)));
    const requests = sum(codes.map(([, count]) => count));
    return { name: name === "unknown" ? "answered here" : name, requests, rate: requests / seconds, client: of("4"), server: of("5") + of("0"), buckets, all: sum(Object.values(service.codes)) };
  });
  const buckets = now.bounds.concat([0]).map((_, at) => sum(rows.map((row) => row.buckets[at] || 0)));
  return { rows, buckets, requests: sum(rows.map((row) => row.requests)), rate: sum(rows.map((row) => row.rate)), server: sum(rows.map((row) => row.server)) };
};

const ruleKey = (rule) => `rule ${rule.host} ${rule.virtual_service} ${rule.index} ${rule.match_index}`;
let ruleRates = new Map();

// What each rule took since then; a rule that was changed counts from nothing.
const rulesBetween = (before, now) => {
  const seconds = Math.max(0.001, (now.uptime_ms - before.uptime_ms) / 1000);
  const old = new Map((before.rules || []).map((rule) => [ruleKey(rule), rule]));
  return (now.rules || []).map((rule) => {
    const known = old.get(ruleKey(rule));
    const then = known && sum(known.classes) <= sum(rule.classes) ? known : { classes: [], buckets: [] };
    const classes = rule.classes.map((count, at) => Math.max(0, count - (then.classes[at] || 0)));
    const buckets = rule.buckets.map((count, at) => Math.max(0, count - (then.buckets[at] || 0)));
    const requests = sum(classes);
    return { key: ruleKey(rule), rule, requests, rate: requests / seconds, client: classes[4], server: classes[5] + classes[0], buckets, all: sum(rule.classes) };
  });
};

const numbers = (row, bounds) => {
  const cell = (text, tone) => element("td", { class: `num ${tone || ""}` }, text);
  const at = (part) => milliseconds(quantile(part, bounds, row.buckets));
  return [cell(perSecond(row.rate)), cell(share(row.client, row.requests), row.client ? "warn" : ""), cell(share(row.server, row.requests), row.server ? "bad" : ""),
    cell(at(0.5)), cell(at(0.9)), cell(at(0.99)), cell(row.all.toLocaleString())];
};

const showRules = (now) => {
  const all = rulesBetween(samples[0], now);
  ruleRates = new Map(all.map((row) => [row.key, row]));
  const rows = all.sort((a, b) => b.rate - a.rate || b.all - a.all).slice(0, 100).map((row) => element("tr", {},
    element("th", { scope: "row" }, `${row.rule.virtual_service} http[${row.rule.index}]`, " ", element("span", { class: "muted" }, row.rule.name || row.rule.match)),
    element("td", {}, row.rule.host), ...numbers(row, now.bounds)));
  if (rows.length) byId("rules").replaceChildren(...rows);
  showRuleRates();
};

const share = (part, all) => (all ? `${((100 * part) / all).toFixed(part && part / all < 0.1 ? 1 : 0)} %` : "0 %");

const showRates = (now) => {
  const view = between(samples[0], now);
  byId("rate").textContent = perSecond(view.rate);
  byId("errors").textContent = share(view.server, view.requests);
  byId("errors").className = view.server ? "bad" : "";
  byId("p50").textContent = milliseconds(quantile(0.5, now.bounds, view.buckets));
  byId("p99").textContent = milliseconds(quantile(0.99, now.bounds, view.buckets));
  const rows = view.rows.sort((a, b) => b.rate - a.rate || b.all - a.all).slice(0, 100)
    .map((row) => element("tr", {}, element("th", { scope: "row" }, row.name), ...numbers(row, now.bounds)));
  if (rows.length) byId("services").replaceChildren(...rows);
};

const showSpark = (now) => {
  const last = samples[samples.length - 1];
  if (last && last !== now) rates = [...rates, between(last, now).rate].slice(-120);
  const most = Math.max(1, ...rates);
  const points = rates.map((rate, at) => `${(240 - (rates.length - 1 - at) * 2).toFixed(1)} ${(38 - (36 * rate) / most).toFixed(1)}`);
  byId("spark").replaceChildren(drawn("path", { d: points.length > 1 ? `M${points.join("L")}` : "" }));
};

const refresh = () => { showGraph(); showFindings(); showCertificates(); showHistory(); };

const take = (now) => {
  // A gateway that was started anew counts from nothing.
  if (samples.length && now.uptime_ms < samples[samples.length - 1].uptime_ms) { samples = []; rates = []; }
  showSpark(now);
  samples = [...samples, now].slice(-(WINDOW + 1));
  showRates(now);
  showRules(now);
  const state = byId("state");
  state.textContent = now.state.toLowerCase();
  state.className = now.state === "LIVE" ? "good" : "warn";
  byId("generation").textContent = now.generation;
  byId("connections").textContent = now.connections.toLocaleString();
  byId("uptime").textContent = duration(Math.floor(now.uptime_ms / 1000));
  byId("uptime").title = `${now.uptime_ms} ms`;
  if (now.generation !== shownGeneration) { shownGeneration = now.generation; refresh(); }
};

const follow = () => {
  const events = new EventSource("/events");
  events.addEventListener("message", (event) => {
    if (byId("link").textContent !== "live") byId("link").textContent = "live";
    take(JSON.parse(event.data));
  });
  events.addEventListener("error", () => {
    byId("link").textContent = "not connected, trying again";
    // A browser gives up by itself after a refusal, such as too many open pages.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
  });
};

// Health and expiry change without a new configuration.
setInterval(() => { if (!document.hidden) { showGraph(); showFindings(); showCertificates(); } }, 15000);
