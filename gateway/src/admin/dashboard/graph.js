// The routing graph: five columns from server to endpoint, drawn as SVG; the same as nested lists for who reads or listens.
const SVG = "http://www.w3.org/2000/svg";
const COLUMNS = ["Gateway", "Host", "Rule", "Cluster", "Endpoint"];
const BOX = { width: 205, height: 38, gapX: 58, gapY: 10, top: 26 };
const MOST_NODES = 400;
let graphData = null;
let litKeys = new Set();

const drawn = (name, attributes, ...children) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Nodes by column and the edges between them; a node's key is what explain names it by.
const layout = (data, wanted) => {
  const columns = COLUMNS.map(() => new Map());
  const edges = new Map();
  const add = (column, key, node) => { if (!columns[column].has(key)) columns[column].set(key, { key, column, ...node }); };
  const join = (from, to, label) => { const key = `${from}\u0000${to}`; if (!edges.has(key)) edges.set(key, { from, to, label }); };
  const clusters = new Map(data.clusters.map((cluster) => [cluster.name, cluster]));
  const tables = new Map(data.tables.map((entry) => [entry.name, entry]));
  const leadTo = (from, destinations) => {
    const sum = destinations.reduce((all, to) => all + to.weight, 0);
    for (const to of destinations) {
      const cluster = clusters.get(to.cluster);
      const key = `cluster ${to.cluster}`;
      const healthy = cluster ? cluster.endpoints.filter((endpoint) => endpoint.healthy && !endpoint.ejected).length : 0;
      add(3, key, {
        title: cluster ? cluster.host : to.cluster,
        sub: cluster ? `${cluster.subset ? `${cluster.subset} · ` : ""}port ${cluster.port} · ${healthy}/${cluster.endpoints.length} healthy` : "no such cluster",
        down: healthy === 0,
      });
      join(from, key, destinations.length > 1 ? `${Math.round((to.weight / sum) * 100)} %` : "");
      for (const endpoint of cluster ? cluster.endpoints : []) {
        const end = `endpoint ${to.cluster} ${endpoint.address}`;
        const state = endpoint.ejected ? "ejected" : endpoint.healthy ? "healthy" : "not ready";
        add(4, end, { title: endpoint.workload || endpoint.address, sub: `${endpoint.address} · ${state}${endpoint.weight > 1 ? ` · weight ${endpoint.weight}` : ""}`, down: state !== "healthy", dot: state === "healthy" ? "good" : "bad" });
        join(key, end, "");
      }
    }
  };
  const matches = (...texts) => !wanted || texts.some((text) => text && text.toLowerCase().includes(wanted));
  for (const server of data.servers) {
    const key = `server ${server.listener} ${server.gateway} ${server.server} ${server.server_names || ""}`;
    const node = { title: `${server.gateway}`, sub: `${server.protocol} ${server.port}${server.server_names ? ` · ${server.server_names}` : ""}` };
    if (server.destinations) {
      if (matches(server.gateway, server.server_names, ...server.destinations.map((to) => to.cluster))) { add(0, key, node); leadTo(key, server.destinations); }
      continue;
    }
    const entry = tables.get(server.table);
    if (!entry || !entry.hosts.length) { if (matches(server.gateway)) add(0, key, node); continue; }
    for (const host of entry.hosts) {
      const hostKey = `host ${host.name}`;
      for (const rule of host.rules) {
        if (!matches(host.domain, rule.virtual_service, rule.match, rule.action, server.gateway)) continue;
        const ruleKey = `rule ${host.name} ${rule.virtual_service} ${rule.index} ${rule.match_index}`;
        add(0, key, node);
        add(1, hostKey, { title: host.domain, sub: `${host.rules.length} rules${host.require_tls ? " · TLS only" : ""}` });
        add(2, ruleKey, { title: rule.match, sub: `${rule.virtual_service} http[${rule.index}]${rule.destinations ? "" : ` · ${rule.action}`}`, hint: rule.file ? `${rule.file}:${rule.line}` : "" });
        join(key, hostKey, "");
        join(hostKey, ruleKey, "");
        if (rule.destinations) leadTo(ruleKey, rule.destinations);
      }
    }
  }
  return { columns, edges: [...edges.values()] };
};

const drawGraph = () => {
  const target = byId("graph");
  const note = byId("graph-note");
  if (!graphData) return;
  const { columns, edges } = layout(graphData, byId("filter").value.trim().toLowerCase());
  const count = columns.reduce((all, column) => all + column.size, 0);
  if (count > MOST_NODES) {
    note.textContent = `${count} parts are too many for a picture: narrow it down.`;
    target.replaceChildren();
    return;
  }
  note.textContent = count ? "" : "Nothing is routed that matches.";
  const step = BOX.height + BOX.gapY;
  const tallest = Math.max(1, ...columns.map((column) => column.size));
  const height = BOX.top + tallest * step;
  const width = COLUMNS.length * BOX.width + (COLUMNS.length - 1) * BOX.gapX + 4;
  const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Routing graph with ${count} parts` });
  const at = new Map();
  columns.forEach((column, index) => {
    const x = 2 + index * (BOX.width + BOX.gapX);
    svg.append(drawn("text", { x, y: 14, class: "head" }, COLUMNS[index]));
    const offset = ((tallest - column.size) * step) / 2;
    [...column.values()].forEach((node, row) => at.set(node.key, { ...node, x, y: BOX.top + Math.min(offset, 160) + row * step }));
  });
  const lit = (key) => litKeys.has(key);
  const faded = litKeys.size > 0;
  for (const { from, to, label } of edges) {
    const [a, b] = [at.get(from), at.get(to)];
    const on = lit(from) && lit(to);
    const [x1, y1, x2, y2] = [a.x + BOX.width, a.y + BOX.height / 2, b.x, b.y + BOX.height / 2];
    const middle = (x1 + x2) / 2;
    svg.append(drawn("path", { d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, class: on ? "lit" : faded ? "dim" : "" }));
    if (label) svg.append(drawn("text", { x: x2 - 6, y: y2 - 5, class: `share${faded && !on ? " dim" : ""}`, "text-anchor": "end" }, label));
  }
  for (const node of at.values()) {
    const classes = [lit(node.key) ? "lit" : faded ? "dim" : "", node.down ? "down" : ""].join(" ").trim();
    const group = drawn("g", { class: classes },
      drawn("title", {}, [node.title, node.sub, node.hint].filter(Boolean).join("\n")),
      drawn("rect", { x: node.x, y: node.y, width: BOX.width, height: BOX.height, rx: 6 }),
      drawn("text", { x: node.x + 9, y: node.y + 16 }, clipped(node.title, node.dot ? 26 : 30)),
      drawn("text", { x: node.x + 9, y: node.y + 31, class: "sub" }, clipped(node.sub, node.column === 2 ? 26 : 35)));
    if (node.column === 2) group.append(drawn("text", { x: node.x + BOX.width - 8, y: node.y + 31, class: "sub rate", "text-anchor": "end", "data-rule": node.key }));
    if (node.dot) group.append(drawn("circle", { cx: node.x + BOX.width - 12, cy: node.y + 12, r: 4, class: `dot-${node.dot}` }));
    svg.append(group);
  }
  target.replaceChildren(svg);
  showRuleRates();
  listGraph(columns, edges);
};

// What each rule takes now, in its box.
const showRuleRates = () => {
  for (const text of document.querySelectorAll("#graph [data-rule]")) {
    const row = ruleRates.get(text.dataset.rule);
    text.textContent = row && row.requests ? `${perSecond(row.rate)}/s` : "";
    text.classList.toggle("bad", Boolean(row && row.server));
  }
};

const listGraph = (columns, edges) => {
  const all = new Map(columns.flatMap((column) => [...column]));
  const after = new Map();
  for (const edge of edges) after.set(edge.from, [...(after.get(edge.from) || []), edge]);
  const branch = (key, label) => {
    const node = all.get(key);
    const item = element("li", {}, element("span", {}, label ? `${label} ` : "", node.title), " ", element("span", { class: node.down ? "bad" : "muted" }, node.sub));
    const next = after.get(key) || [];
    if (next.length) item.append(element("ul", {}, ...next.map((edge) => branch(edge.to, edge.label))));
    return item;
  };
  byId("graph-list").replaceChildren(element("ul", { class: "tree" }, ...[...columns[0].keys()].map((key) => branch(key, ""))));
};

const showGraph = async () => {
  try {
    graphData = await fetchJson("/graph");
    drawGraph();
  } catch (error) { problem(byId("graph"), error); }
};

byId("filter").addEventListener("input", drawGraph);
byId("as-list").addEventListener("click", (event) => {
  const list = byId("graph-list").hidden;
  byId("graph-list").hidden = !list;
  byId("graph").hidden = list;
  event.currentTarget.setAttribute("aria-pressed", String(list));
});
