/** Features are found by a text and by a contrast, named, and swept through strengths. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect, accessible, picture }) {
  const api = apiOf(url);
  const { saes } = await api("GET", "/api/status");
  await api("PUT", "/api/steering", { features: [{ sae: saes[0].sae, index: 135, strength: 40 }] });
  const page = await newPage();
  await page.goto(`${url}/ui/features`);
  await page.getByRole("tab", { name: "Find by text" }).click();
  await page.getByLabel("Text", { exact: true }).fill("I SAID HELLO to the king of thine realm");
  await page.getByRole("button", { name: "Which features fire?" }).click();
  await page.getByRole("table", { name: "Features that fire on the text" }).waitFor();
  await accessible(page, "a text");
  await picture(page, "find-by-text");

  await page.getByRole("tab", { name: "Contrast two texts" }).click();
  await page.getByLabel("Texts with it").fill("I AM VERY LOUD\nSTOP DOING THAT");
  await page.getByLabel("Texts without it").fill("I am very loud\nStop doing that");
  await page.getByRole("button", { name: "What tells them apart?" }).click();
  const first = page.getByRole("table", { name: "More in the first" });
  await first.getByText("text in ALL CAPS (yelling)").waitFor();
  await accessible(page, "a contrast");

  await page.getByRole("tab", { name: "Strength sweep" }).click();
  await page.getByLabel("Scales").fill("0, 1");
  await page.getByRole("button", { name: "Sweep", exact: true }).click();
  await page.getByRole("table", { name: "Coherence by scale" }).waitFor({ timeout: 60_000 });
  const answers = await page.getByRole("region", { name: /^Scale / }).allInnerTexts();
  expect(answers.length === 2 && answers[0] !== answers[1], "an answer for each scale");
  await accessible(page, "a sweep");

  await page.goto(`${url}/ui/features?index=21`);
  await page.getByLabel("Label", { exact: true }).fill("a name of mine");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByRole("button", { name: "Take back" }).click();
  await page.getByText("The label is taken back.").waitFor();
  const { promoted } = await api("GET", "/api/features/21");
  await page
    .getByRole("table", { name: "Tokens: Promotes" })
    .getByText(JSON.stringify(promoted[0].token), { exact: true })
    .first()
    .waitFor();
  await accessible(page, "a feature");
  await api("PUT", "/api/steering", { features: [] });
}
