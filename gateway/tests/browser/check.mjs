// Opens the dashboard of a running gateway in Debian's chromium: nothing on the console, events arrive, a request is explained,
// and axe-core finds nothing serious; light, dark and narrow, each with a screenshot.
// needs: apt-get install chromium nodejs; npm install (in this folder)
// usage: node --experimental-websocket check.mjs http://127.0.0.1:15000/ URL_TO_EXPLAIN FOLDER_FOR_SCREENSHOTS
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [page, asked, folder] = process.argv.slice(2);
if (!folder) { console.error("usage: check.mjs DASHBOARD_URL URL_TO_EXPLAIN FOLDER"); process.exit(2); }
const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const profile = mkdtempSync(join(tmpdir(), "limen-browser-"));
const browser = spawn("chromium", ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", `--user-data-dir=${profile}`, "--remote-debugging-port=0", "about:blank"]);
const endpoint = await new Promise((resolve, reject) => {
  let said = "";
  browser.on("error", reject);
  browser.stderr.on("data", (data) => { said += data; const found = said.match(/ws:\/\/\S+/); if (found) resolve(new URL(found[0])); });
});
const tabs = await (await fetch(`http://${endpoint.host}/json`)).json();
const socket = new WebSocket(tabs.find((tab) => tab.type === "page").webSocketDebuggerUrl);
await new Promise((resolve) => { socket.onopen = resolve; });

let last = 0;
let complaints = [];
const waiting = new Map();
socket.onmessage = (event) => {
  const message = JSON.parse(event.data);
  if (message.id) waiting.get(message.id)(message.result || message.error);
  else if (message.method === "Runtime.exceptionThrown") complaints.push(JSON.stringify(message.params.exceptionDetails));
  else if (message.method === "Log.entryAdded" && message.params.entry.level === "error") complaints.push(`${message.params.entry.text} ${message.params.entry.url || ""}`);
  else if (message.method === "Runtime.consoleAPICalled" && message.params.type === "error") complaints.push(JSON.stringify(message.params.args));
};
const call = (method, params = {}) => new Promise((resolve) => { last += 1; waiting.set(last, resolve); socket.send(JSON.stringify({ id: last, method, params })); });
const evaluate = async (expression) => (await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })).result?.value;
const text = (id) => `document.getElementById(${JSON.stringify(id)}).textContent`;

let failed = 0;
const hold = (what, held, more = "") => { console.log(`${held ? "ok  " : "FAIL"} ${what}${held ? "" : ` ${more}`}`); if (!held) failed += 1; };
const eventually = async (what, expression) => {
  for (let tries = 0; tries < 100; tries += 1) {
    if (await evaluate(expression)) return hold(what, true);
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
  return hold(what, false, expression);
};

for (const domain of ["Runtime", "Log", "Page"]) await call(`${domain}.enable`);
for (const [name, scheme, width] of [["light", "light", 1400], ["dark", "dark", 1400], ["narrow", "light", 420]]) {
  complaints = [];
  await call("Page.setBypassCSP", { enabled: false });
  await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  await call("Emulation.setDeviceMetricsOverride", { width, height: 1000, deviceScaleFactor: 1, mobile: false });
  await call("Page.navigate", { url: "about:blank" });
  await call("Page.navigate", { url: page });
  await eventually(`${name}: events arrive`, `document.getElementById("link") && ${text("link")} === "live"`);
  // To the millisecond: what is shown of it changes once a minute.
  const uptime = 'document.getElementById("uptime").title';
  const before = await evaluate(uptime);
  await eventually(`${name}: and go on`, `${uptime} !== ${JSON.stringify(before)}`);
  await fetch(asked).catch(() => {});
  await eventually(`${name}: rules have rates`, `[...document.querySelectorAll("#rules th[scope=row]")].length > 0`);
  await eventually(`${name}: the graph is drawn`, `document.querySelectorAll("#graph rect").length > 0`);
  for (let n = 0; n < 20; n += 1) await fetch(asked).catch(() => {});
  await eventually(`${name}: a rule's rate is in the graph`, `[...document.querySelectorAll("#graph [data-rule]")].some((text) => text.textContent.endsWith("/s"))`);
  hold(`${name}: weights and health are in the graph`, await evaluate(`document.querySelectorAll("#graph circle").length > 0 && document.querySelectorAll("#graph .share").length > 0`));
  await evaluate(`document.getElementById("url").value = ${JSON.stringify(asked)}; document.getElementById("ask").requestSubmit()`);
  await eventually(`${name}: the request is explained`, `document.querySelector("#answer .verdict.good") && document.querySelector("#answer tbody tr")`);
  await eventually(`${name}: its way is lit`, `document.querySelector("#graph g.lit")`);
  hold(`${name}: nothing is wider than the window`, await evaluate("document.documentElement.scrollWidth <= innerWidth"));
  hold(`${name}: nothing on the console`, complaints.length === 0, complaints.join("\n"));
  await evaluate(`${axe};0`);
  const found = await evaluate(`axe.run().then((all) => JSON.stringify(all.violations.filter((one) => ["serious", "critical"].includes(one.impact)).map((one) => [one.id, one.nodes[0].html])))`);
  hold(`${name}: axe finds nothing serious`, found === "[]", found);
  const picture = await call("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
  writeFileSync(join(folder, `${name}.png`), Buffer.from(picture.data, "base64"));
}
browser.once("exit", () => { rmSync(profile, { recursive: true, force: true }); process.exit(failed ? 1 : 0); });
browser.kill();
