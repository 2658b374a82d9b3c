/** Two tabs of one server: what is done in one is seen in the other, and the later of two changes is not lost unseen. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect }) {
  const api = apiOf(url);
  const [one, other] = [await newPage(), await newPage()];
  for (const page of [one, other]) {
    await page.goto(`${url}/ui/`);
    await page.getByLabel("Add a feature").waitFor();
  }
  await one.getByLabel("Add a feature").fill("7");
  await one.getByRole("option", { name: "feature 7", exact: true }).click();
  const there = other.getByRole("region", { name: "feature 7" });
  await there.waitFor();
  await there.getByLabel("Exact strength of feature 7").fill("33.5");
  await there.getByLabel("Exact strength of feature 7").press("Enter");
  const here = one.getByLabel("Exact strength of feature 7");
  await one.waitForFunction((input) => input.value === "33.5", await here.elementHandle());
  expect((await api("GET", "/api/steering")).features[0].strength === 33.5, "the server has what both show");
  await one.getByRole("switch", { name: "Steering" }).click({ force: true });
  await other.getByText("the knobs are kept").waitFor();
  await api("PATCH", "/api/steering", { on: true });
  await one.getByText("the knobs are kept").waitFor({ state: "detached" });
  await api("PUT", "/api/steering", { features: [] });
}
