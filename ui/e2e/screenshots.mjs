/** A picture of every page, with something on it, in light and dark, wide and narrow. */
import { apiOf } from "./api.mjs";
import { eachLook, opened, PAGES } from "./every-page.mjs";

export default async function ({ url, newPage, picture }) {
  const api = apiOf(url);
  const { saes, model } = await api("GET", "/api/status");
  const [{ sae }] = saes;
  await api("PUT", "/api/steering", { features: [{ sae, index: 135, strength: 40 }] });
  await api("PUT", "/api/monitor", { watch: [{ sae, features: [135, 68], top_k: 5, tokens: "all", when: "both" }] });
  const ask = (content) =>
    api("POST", "/v1/chat/completions", { model: model.name, messages: [{ role: "user", content }], max_tokens: 60 });
  await ask("Tell me about the sea.");
  await eachLook(newPage, async (page, look) => {
    const name = (path) => `${path.slice(1) || "playground"}-${look.replace(" pixels", "").replace(", ", "-")}`;
    for (const path of PAGES) {
      await opened(page, url, path);
      if (path === "/") await answered(page);
      if (path === "/monitor") await ask("Tell me about the sky.");
      await page.waitForTimeout(500);
      await picture(page, name(path));
    }
    await page.getByRole("banner").waitFor();
    await opened(page, url, "/monitor");
    await page
      .getByRole("button", { name: /^Open the request of/ })
      .first()
      .click();
    await page.getByRole("option").first().waitFor();
    await picture(page, name("/request"));
    await opened(page, url, "/features?index=135");
    await page.getByText("Most alike, by direction").waitFor();
    await picture(page, name("/feature"));
  });
  await api("PUT", "/api/steering", { features: [] });
  await api("PUT", "/api/monitor", { on: false, watch: [] });
}

/** The first question, answered twice. */
async function answered(page) {
  await page.getByLabel("Message").press("Enter");
  await page.getByText("tokens steered").waitFor({ timeout: 90_000 });
  await page.getByRole("button", { name: "Ask", exact: true }).waitFor({ timeout: 90_000 });
}
