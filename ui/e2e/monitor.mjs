/** What is watched is chosen on the page; a request is read token by token, and what was kept is exported and forgotten. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect, accessible }) {
  const api = apiOf(url);
  const { model } = await api("GET", "/api/status");
  await api("PUT", "/api/monitor", { on: false, watch: [] });
  const page = await newPage();
  await page.goto(`${url}/ui/monitor`);
  await page.getByLabel("Watch a feature").fill("caps");
  await page.getByRole("option", { name: /ALL CAPS/ }).click();
  await page
    .getByLabel("135, live")
    .or(page.getByRole("region", { name: /ALL CAPS.*live/ }))
    .waitFor();
  await page.getByLabel("Strongest of all").fill("4");
  await page.getByLabel("Strongest of all").blur();
  await page.waitForFunction(async () => (await (await fetch("/api/monitor")).json()).watch[0]?.top_k === 4);
  const messages = [{ role: "user", content: "WRITE IN CAPITALS" }];
  const { id } = await api("POST", "/v1/chat/completions", { model: model.name, messages, max_tokens: 12 });

  await page.getByTitle(id).click(); // the list follows what is asked
  await page.getByText(id).waitFor();
  const { activations, answers } = await api("GET", `/api/requests/${id}`);
  await page.getByRole("button", { name: "Answer" }).click();
  await page.getByRole("region", { name: "What was said" }).getByText(answers[0]).first().waitFor();
  await accessible(page, "what was said");
  const tokens = page.getByRole("option");
  expect((await tokens.count()) === activations.length, "each token that was read is there");
  await tokens.first().focus();
  await page.keyboard.press("ArrowRight");
  expect(await tokens.nth(1).evaluate((element) => element === document.activeElement), "arrows go through the tokens");
  await tokens.nth(activations.findIndex(({ top }) => top?.length)).focus(); // not every position is read whole
  await page.getByText("Strongest here:").waitFor();
  await page.getByRole("switch", { name: "As a table" }).click({ force: true });
  await page.getByRole("table", { name: "Tokens and activations" }).waitFor();
  await accessible(page, "a request as a table");
  await page.getByRole("button", { name: "All requests" }).click();

  await page.getByRole("button", { name: "Export" }).click();
  const saving = page.waitForEvent("download");
  await page.getByRole("menuitem", { name: /^CSV/ }).click();
  expect((await saving).suggestedFilename() === "activations.csv", "a file is saved");
  await page.getByRole("tab", { name: "Statistics" }).click();
  await page.getByRole("table", { name: "Statistics of the watched features" }).waitFor();
  await accessible(page, "statistics");
  await page.getByRole("button", { name: "Delete the history" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByText("requests are forgotten").waitFor();
  await api("PUT", "/api/monitor", { on: false, watch: [] });
}
