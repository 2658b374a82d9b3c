/** From an empty server to a profile that a chat client uses, and its activations on the monitor. All of it by hand. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect, ask, accessible }) {
  const api = apiOf(url);
  const page = await newPage();
  const { model, sae, feature } = await ask("names");
  await page.goto(`${url}/ui/`);
  await page.getByRole("link", { name: "Choose a model" }).click();

  await page.getByLabel("Hugging Face id").fill(model.split("/")[1]);
  await page.getByRole("button", { name: "Search Hugging Face" }).click();
  const found = page.getByRole("table", { name: "Found on Hugging Face" });
  await found.waitFor();
  await accessible(page, "what was found");
  await found.getByRole("button", { name: model, exact: true }).click();
  await page.getByRole("button", { name: /^Fetch / }).click();
  await page.getByRole("button", { name: `Load ${model}`, exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Load", exact: true }).click();
  await page.getByRole("banner").getByText(model).waitFor();

  await page.getByRole("link", { name: "SAEs", exact: true }).click();
  await page.getByLabel("Any other, by its Hugging Face id").fill(sae);
  await page.getByRole("button", { name: "Look at it" }).click();
  await page
    .getByRole("button", { name: /^Fetch / })
    .last()
    .click();
  await page.getByRole("button", { name: `Attach ${sae}`, exact: true }).click();
  await page.getByRole("region", { name: `Attached: ${sae}` }).waitFor();
  await accessible(page, "an attached SAE");

  await page.getByRole("link", { name: "Playground" }).click();
  await page.getByLabel("Add a feature").fill(String(feature));
  await page.getByRole("option", { name: `feature ${feature}` }).click();
  const strength = page.getByLabel(`Exact strength of feature ${feature}`);
  await strength.fill("12");
  await strength.press("Enter");
  await page.waitForFunction(async () => {
    const { features } = await (await fetch("/api/steering")).json();
    return features[0]?.strength === 12;
  });
  await page.getByLabel("Message").fill("One two three");
  await page.keyboard.press("Enter");
  await page.getByText("tokens steered").waitFor({ timeout: 60_000 });
  const texts = await page.locator("[data-column] [data-answer]").allInnerTexts();
  expect(texts[0] !== texts[1], "the steered answer is another one");

  await page.getByRole("button", { name: "Save as profile…" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("yelling-demo");
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await page.getByText(`Chat clients find it as ${model}:yelling-demo`).waitFor();
  await page.getByRole("button", { name: `Watch feature ${feature}` }).click();

  await page.getByRole("link", { name: "Profiles" }).click();
  await page.getByRole("button", { name: "Deactivate" }).click(); // what was just saved is active
  await page.getByRole("button", { name: "Activate yelling-demo" }).click();
  await page.getByRole("button", { name: "Deactivate" }).waitFor();

  await page.getByRole("link", { name: "Monitor" }).click();
  const live = page.locator(`[data-feature="${feature}"]`);
  await live.waitFor();
  const id = await ask("openai client");
  await page.waitForFunction((at) => document.querySelector(`[data-feature="${at}"]`).dataset.position, feature);
  const seen = await api("GET", `/api/requests/${id}`);
  expect(seen.request.profile === "yelling-demo", "the client was steered by the profile");
  const told = seen.activations.at(-1).values[0];
  await page.waitForFunction(
    ([at, value]) => Number(document.querySelector(`[data-feature="${at}"]`).dataset.value) === value,
    [feature, told],
  );
  await page
    .getByRole("row", { name: /openai-python/ })
    .getByRole("button")
    .click();
  await page.getByText(id).waitFor();
  expect((await page.getByRole("option").count()) === seen.activations.length, "every token is there");
  await accessible(page, "a request");
}
