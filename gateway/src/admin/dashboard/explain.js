// The explain form: what would happen to one request, its way in the graph, and why each other rule lost.
const WORDS = {
  forward: "is forwarded", redirect: "is redirected", direct_response: "is answered here", not_found: "finds no route",
  misdirected: "is misdirected", refused: "is refused", passthrough: "is passed through", denied: "is denied",
};

const ruleName = (rule) => `${rule.virtual_service} http[${rule.index}]${rule.match_index ? `.match[${rule.match_index}]` : ""}`;

const light = (answer) => {
  litKeys = new Set();
  const { listener, virtual_host: host, route } = answer;
  if (listener && graphData) {
    for (const server of graphData.servers) {
      if (server.listener === listener.name && server.gateway === listener.gateway && server.server === listener.server) litKeys.add(`server ${server.listener} ${server.gateway} ${server.server} ${server.server_names || ""}`);
    }
  }
  if (host) litKeys.add(`host ${host.name}`);
  if (host && route) litKeys.add(`rule ${host.name} ${route.virtual_service} ${route.index} ${route.match_index}`);
  for (const cluster of answer.clusters) {
    litKeys.add(`cluster ${cluster.name}`);
    const known = graphData && graphData.clusters.find((other) => other.name === cluster.name);
    for (const endpoint of known ? known.endpoints : []) if (endpoint.healthy && !endpoint.ejected) litKeys.add(`endpoint ${cluster.name} ${endpoint.address}`);
  }
  drawGraph();
};

const told = (answer) => {
  const steps = [];
  if (answer.listener) steps.push(`port ${answer.listener.port}`, answer.listener.gateway ? `Gateway ${answer.listener.gateway}` : "no server takes it");
  else steps.push("nothing listens there");
  if (answer.virtual_host) steps.push(`host ${answer.virtual_host.domain}`);
  if (answer.route) steps.push(ruleName(answer.route));
  for (const cluster of answer.clusters) steps.push(`${cluster.name}${answer.clusters.length > 1 ? ` (${cluster.weight})` : ""}, ${cluster.endpoints} endpoints`);
  if (answer.response) steps.push(`${answer.response.status} ${answer.response.headers.location || ""}`.trim());
  const good = ["forward", "redirect", "direct_response", "passthrough"].includes(answer.verdict);
  const parts = [
    element("p", { class: `verdict ${good ? "good" : "bad"}` }, `The request ${WORDS[answer.verdict] || answer.verdict}.`),
    answer.reason ? element("p", {}, answer.reason) : null,
    element("ol", { class: "steps", "aria-label": "The way of the request" }, ...steps.map((step) => element("li", {}, step))),
  ];
  const { actions } = answer;
  const done = [];
  if (actions.path) done.push(`path ${actions.path}`);
  if (actions.authority) done.push(`authority ${actions.authority}`);
  if (actions.timeout_ms) done.push(`time limit ${actions.timeout_ms} ms`);
  if (actions.retries) done.push(`retries ${JSON.stringify(actions.retries)}`);
  if (actions.mirror.length) done.push(`mirror ${JSON.stringify(actions.mirror)}`);
  if (actions.fault) done.push(`fault ${JSON.stringify(actions.fault)}`);
  if (done.length) parts.push(element("h3", {}, "On the way"), element("ul", {}, ...done.map((text) => element("li", { class: "mono" }, text))));
  if (answer.candidates.length) {
    parts.push(element("h3", {}, "Every rule of the host, in order"),
      table("Rules that were looked at", ["Rule", "Taken", "Why"], answer.candidates.map((candidate) => {
        const taken = answer.route && ruleName(answer.route) === ruleName(candidate);
        return [element("code", {}, ruleName(candidate)), element("span", { class: taken ? "good" : "muted" }, taken ? "taken" : candidate.matched ? "too late" : "lost"), candidate.reason];
      })));
  }
  return parts.filter(Boolean);
};

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.currentTarget);
  const query = new URLSearchParams();
  const url = form.get("url").trim();
  query.set("url", url.includes("://") ? url : `http://${url}`);
  if (form.get("method").trim()) query.set("method", form.get("method").trim());
  if (form.get("port").trim()) query.set("port", form.get("port").trim());
  for (const line of form.get("headers").split("\n")) if (line.trim()) query.append("header", line.trim());
  const target = byId("answer");
  try {
    const answer = await fetchJson(`/explain?${query}`);
    target.replaceChildren(...told(answer));
    light(answer);
  } catch (error) {
    litKeys = new Set();
    drawGraph();
    problem(target, error);
  }
});

fetchJson("/server_info").then((info) => { byId("version").textContent = info.version; }, (error) => problem(byId("version"), error));
follow();
