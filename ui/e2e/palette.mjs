/** Everything by a few letters, and the keys that need no menu. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect, accessible }) {
  const api = apiOf(url);
  const { saes } = await api("GET", "/api/status");
  await api("PUT", "/api/steering", { features: [{ sae: saes[0].sae, index: 135, strength: 40 }] });
  const page = await newPage();
  await page.goto(`${url}/ui/settings`);
  await page.getByRole("table", { name: "Settings of the server" }).waitFor();
  await page.keyboard.press("Control+k");
  const palette = page.getByPlaceholder("A page, a profile, something to do");
  await palette.fill("mon");
  await accessible(page, "the palette");
  await page.keyboard.press("Enter");
  await palette.waitFor({ state: "detached" });
  await page.getByRole("heading", { name: "Monitor", level: 1 }).waitFor();
  await page.getByRole("heading", { name: "Knobs" }).waitFor();

  await page.keyboard.press(".");
  await page.getByText("the knobs are kept").waitFor();
  expect((await api("GET", "/api/steering")).on === false, "a key turns steering off");
  await page.keyboard.press(".");
  await page.getByText("the knobs are kept").waitFor({ state: "detached" });
  await page.keyboard.press("k");
  await page.getByRole("heading", { name: "Knobs" }).waitFor({ state: "detached" });
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await accessible(page, "the keys");
  await api("PUT", "/api/steering", { features: [] });
}
