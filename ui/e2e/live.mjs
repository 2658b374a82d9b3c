/** How late the chart is: from a token's chunk in this browser to its point on the page. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect, picture }) {
  const api = apiOf(url);
  const { saes, model } = await api("GET", "/api/status");
  await api("PUT", "/api/monitor", {
    watch: [{ sae: saes[0].sae, features: [135, 68], top_k: 5, tokens: "generated" }],
  });
  const page = await newPage();
  await page.goto(`${url}/ui/monitor`);
  await page.locator('[data-feature="135"]').waitFor();
  const late = await page.evaluate(async (model) => {
    const seen = [];
    const chart = document.querySelector('[data-feature="135"]');
    new MutationObserver(() => seen.push([Number(chart.dataset.position), performance.now()])).observe(chart, {
      attributes: true,
    });
    const body = { model, stream: true, max_tokens: 48, ignore_eos: true, temperature: 0 };
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, messages: [{ role: "user", content: "Tell me about the sea." }] }),
    });
    const chunks = [];
    const reader = answer.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) chunks.push(performance.now());
    await new Promise((done) => setTimeout(done, 500));
    // of every chunk: when the next point was drawn
    return chunks
      .slice(1, -2)
      .map((at) => Math.min(...seen.map(([, drawn]) => drawn).filter((drawn) => drawn > at - 100)) - at);
  }, model.name);
  const [middle, worst] = [[...late].sort((one, other) => one - other)[late.length >> 1], Math.max(...late)];
  expect(late.length > 20 && Number.isFinite(worst), `points for ${late.length} chunks`);
  // half of them, and not all: this may share its processor with whatever else is tested
  expect(middle < 200, `a point within 200 ms of its token, not ${Math.round(middle)}`);
  await picture(page, "monitor");
  await api("PUT", "/api/monitor", { on: false, watch: [] });
  return { median: Math.round(middle), worst: Math.round(worst) };
}
