/** The server is killed and started again: the page says so, comes back by itself, and shows what is true then. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect, ask }) {
  const page = await newPage();
  await page.goto(`${url}/ui/profiles`);
  await page.getByText("0 profiles").waitFor();
  await ask("kill the server");
  await page.getByText("The connection to the server is lost").waitFor();
  await ask("start the server");
  await apiOf(url)("POST", "/api/profiles", { name: "made meanwhile", features: [{ index: 1, strength: 1 }] });
  await page.getByText("The connection to the server is lost").waitFor({ state: "detached" });
  await page.getByRole("region", { name: "made meanwhile" }).waitFor();
  expect(await page.getByText("1 profile", { exact: true }).isVisible(), "the list is that of the server");
}
