/** Ten thousand profiles and 16,384 labels: found, opened, and never all in the page at once. */
import { apiOf } from "./api.mjs";

const PROFILES = 10_000;
const LABELS = 16_384;

export default async function ({ url, newPage, expect, accessible }) {
  const api = apiOf(url);
  const { total } = await api("GET", "/api/profiles?limit=1");
  expect(total === PROFILES, `${PROFILES} profiles are there, not ${total}`);
  const page = await newPage();
  const began = Date.now();
  await page.goto(`${url}/ui/profiles`);
  await page.getByText(`${PROFILES} profiles`).waitFor();
  const shown = Date.now() - began;
  await page.getByLabel("Search").fill("09876");
  await page.getByText("1 profile", { exact: true }).waitFor();
  await page.getByRole("region", { name: "made 09876" }).waitFor();
  await accessible(page, "one of many profiles");

  await page.goto(`${url}/ui/features`);
  await page.getByText(/of 16\.4 k labels/).waitFor();
  const rows = await page.getByRole("listitem").count();
  expect(rows > 5 && rows < 100, `only what is seen is drawn: ${rows} of ${LABELS} rows`);
  await page.getByLabel("Words of the label").fill(`label ${LABELS - 1}`);
  await page.getByRole("link", { name: new RegExp(`^${LABELS - 1} · `) }).waitFor();
  await accessible(page, "one of many labels");
  return { milliseconds: shown };
}
