/** Profiles: made from the knobs, edited, copied, renamed, compared, taken in, given out and deleted. */
import { apiOf } from "./api.mjs";

const MADE = ["mine", "mine (2)", "yours"];

/** Those of this journey, also of one that was broken off. */
async function removeThem(api) {
  const { profiles } = await api("GET", "/api/profiles");
  for (const { name } of profiles.filter(({ name }) => MADE.includes(name)))
    await api("DELETE", `/api/profiles/${encodeURIComponent(name)}?force=true`);
}

export default async function ({ url, newPage, expect, accessible }) {
  const api = apiOf(url);
  const { saes } = await api("GET", "/api/status");
  await removeThem(api);
  await api("PUT", "/api/steering", { features: [{ sae: saes[0].sae, index: 135, strength: 40 }] });
  const page = await newPage();
  await page.goto(`${url}/ui/profiles`);
  const more = async (name, item) => {
    await page.getByRole("button", { name: `More for ${name}`, exact: true }).click();
    await page
      .getByRole("menu", { name: `More for ${name}`, exact: true })
      .getByRole("menuitem", { name: item })
      .click();
  };
  await page.getByRole("button", { name: "Save the knobs" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("mine");
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await page.getByRole("region", { name: "mine", exact: true }).waitFor();

  await more("mine", "Edit…");
  await page.getByLabel("Description").fill("Loud.");
  await page.getByLabel("Strength of feature 1").fill("2.5");
  await accessible(page, "an editor");
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await page.getByText("mine is saved.").waitFor();
  const { profile } = await api("GET", "/api/profiles/mine");
  expect(profile.features[0].strength === 2.5 && profile.description === "Loud.", "what was typed is what is kept");

  await more("mine", "Duplicate");
  await page.getByRole("region", { name: "mine (2)" }).waitFor();
  await more("mine (2)", "Rename…");
  await page.getByRole("dialog").getByLabel("Name").fill("yours");
  await page.getByRole("dialog").getByRole("button", { name: "Rename" }).click();
  await page.getByRole("region", { name: "yours", exact: true }).waitFor();
  await more("yours", "Compare…");
  await page.getByRole("combobox", { name: "With" }).fill("yelling");
  await page.getByRole("option", { name: "yelling" }).click();
  await page.getByRole("table", { name: "Differences" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });

  const saving = page.waitForEvent("download");
  await more("yours", "miLLM: everything");
  expect((await saving).suggestedFilename() === "yours.json", "a file is saved");
  await more("yours", "Delete");
  await page.getByText("yours is deleted.").waitFor();
  await page.getByRole("region", { name: "yours", exact: true }).waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Undo" }).click();
  await page.getByRole("region", { name: "yours", exact: true }).waitFor();

  await page.getByRole("button", { name: "Import", exact: true }).click();
  const flat = { version: "1.0", name: "loud", model_id: "google/gemma-2-2b", sae_id: "sae_7", layer: 20 };
  await page.getByLabel("Or paste it").fill(JSON.stringify({ ...flat, steering: { 11859: 80 } }));
  await page.getByRole("button", { name: "See what it becomes" }).click();
  await page.getByText("Which SAE is sae_7?").waitFor();
  await accessible(page, "an import");
  await removeThem(api);
  await api("PUT", "/api/steering", { features: [] });
}
