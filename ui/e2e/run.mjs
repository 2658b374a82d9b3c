/** Runs one journey in Chromium: what it needs is on stdin, what came of it goes to stdout, a line of JSON each.

Foreign hosts, errors in the console and exceptions fail every journey.
*/
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline/promises";
import { chromium } from "playwright-core";

const QUIET = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf-8");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const read = async () => JSON.parse((await lines.next()).value);
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const { journey, url, chromium: executablePath, pictures } = await read();
const browser = await chromium.launch({ executablePath, args: QUIET });
const problems = [];

function expect(isSo, what) {
  if (!isSo) throw new Error(`expected: ${what}`);
}

/** What fades in has no contrast yet: nothing moves here. */
async function newPage(options = {}) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", ...options });
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => problems.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    // a refusal is a line there too: whether it was expected, the journey knows
    const isRefusal = /Failed to load resource|WebSocket connection/.test(message.text());
    if (message.type() === "error" && !isRefusal) problems.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const { protocol, host } = new URL(request.url());
    if (!["data:", "blob:"].includes(protocol) && host !== new URL(url).host)
      problems.push(`foreign: ${request.url()}`);
  });
  return page;
}

/** Nothing on the page breaks WCAG 2.2 AA, as far as a machine sees, and it needs no scrolling sideways. */
async function accessible(page, name) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate((values) => axe.run({ runOnly: { type: "tag", values } }), RULES);
  const told = violations.map(({ id, nodes }) => `${id} at ${nodes.map(({ target }) => target).join(", ")}`);
  expect(told.length === 0, `${name} is accessible, not ${told.join("; ")}`);
  const [width, wide] = await page.evaluate(() => [window.innerWidth, document.documentElement.scrollWidth]);
  expect(wide <= width, `${name} fits ${width} pixels, not ${wide}`);
}

/** Asks whoever runs this to do something that a page cannot. */
async function ask(what) {
  tell({ ask: what });
  return await read();
}

const picture = async (page, name) => pictures && (await page.screenshot({ path: `${pictures}/${name}.png` }));

const { default: go } = await import(`./${journey}.mjs`);
try {
  const told = await go({ url, newPage, accessible, expect, ask, picture });
  expect(problems.length === 0, `no problem, not ${problems.join("; ")}`);
  tell({ told: told ?? null });
} catch (error) {
  const pages = browser.contexts().flatMap((context) => context.pages());
  for (const [at, page] of pages.entries()) await picture(page, `${journey}-failed-${at}`);
  throw error;
} finally {
  await browser.close();
}
process.exit(0);
