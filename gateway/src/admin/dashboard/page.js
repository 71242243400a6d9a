// What all parts of the page use, and the parts that are fetched once a configuration. Text from the gateway is set as text only.
const byId = (id) => document.getElementById(id);

const element = (name, attributes, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return made;
};

const fetchJson = async (path) => {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.trim() || String(answer.status));
  return JSON.parse(text);
};

const table = (caption, headings, rows) =>
  element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {},
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...headings.map((heading) => element("th", { scope: "col" }, heading)))),
      element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell)))))));

const place = (file, line) => (file ? element("code", {}, line ? `${file}:${line}` : file) : "–");

const duration = (seconds) => {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d`;
};

const problem = (where, error) => where.replaceChildren(element("p", { class: "bad" }, error.message));

const showFindings = async () => {
  const target = byId("finding-list");
  try {
    const { findings, resources } = await fetchJson("/diagnostics");
    if (!findings.length) {
      target.replaceChildren(element("p", { class: "good" }, `Nothing is wrong with ${resources} resources.`));
      return;
    }
    const tone = { error: "bad", warning: "warn" };
    target.replaceChildren(table(`${findings.length} findings in ${resources} resources`, ["Severity", "Code", "Resource", "Place", "Message"],
      findings.slice(0, 300).map((finding) => [
        element("span", { class: tone[finding.severity] || "muted" }, finding.severity),
        element("code", {}, finding.code),
        finding.resource || "–",
        place(finding.file, finding.line),
        element("span", {}, finding.message, finding.hint ? element("div", { class: "muted" }, finding.hint) : null),
      ])));
  } catch (error) { problem(target, error); }
};

const showCertificates = async () => {
  const target = byId("certificate-list");
  try {
    const { certificates } = await fetchJson("/certs");
    const all = certificates.flatMap((certificate) => certificate.cert_chain);
    if (!all.length) {
      target.replaceChildren(element("p", { class: "muted" }, "No certificate is loaded."));
      return;
    }
    target.replaceChildren(table("By days left", ["Days left", "Names", "From", "Until", "Source"],
      all.sort((a, b) => a.days_until_expiration - b.days_until_expiration).map((certificate) => {
        const days = Number(certificate.days_until_expiration);
        const expired = new Date(certificate.expiration_time) < new Date();
        const tone = expired || days < 7 ? "bad" : days < 30 ? "warn" : "good";
        return [
          element("strong", { class: tone }, expired ? "expired" : String(days)),
          certificate.subject_alt_names.map((name) => name.dns || name.ip_address).join(", ") || "–",
          certificate.valid_from, certificate.expiration_time, element("code", {}, certificate.path),
        ];
      })));
  } catch (error) { problem(target, error); }
};

const showHistory = async () => {
  const target = byId("generations");
  try {
    const { generations } = await fetchJson("/generations");
    target.replaceChildren(...generations.map((generation, at) => {
      const parts = ["added", "changed", "removed"].filter((kind) => generation[kind].count);
      const item = element("li", {},
        element("strong", {}, `Configuration ${generation.generation}`), ` · `,
        element("time", { datetime: generation.at }, new Date(generation.at).toLocaleString()),
        ` · ${generation.resources} resources`,
        generation.errors ? element("span", { class: "bad" }, ` · ${generation.errors} errors`) : null,
        parts.length ? ` · ${parts.map((kind) => `${generation[kind].count} ${kind}`).join(", ")}` : " · same resources");
      for (const kind of parts) {
        const { shown, count } = generation[kind];
        const details = element("details", {}, element("summary", {}, `${count} ${kind}`),
          element("ul", {}, ...shown.map((entry) => element("li", {}, entry.resource, " ", entry.file ? place(entry.file, entry.line) : null)),
            count > shown.length ? element("li", { class: "muted" }, `and ${count - shown.length} more`) : null));
        if (at === 0 && count <= 5) details.open = true;
        item.append(details);
      }
      return item;
    }));
  } catch (error) { problem(target, error); }
};
