/** The main job without a mouse: a feature is added, pushed, and the model asked. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect }) {
  const api = apiOf(url);
  await api("PUT", "/api/steering", { features: [] });
  const page = await newPage();
  await page.goto(`${url}/ui/`);
  await page.getByLabel("Message").waitFor();

  const tabTo = async (locator, back = false) => {
    for (let step = 0; step < 80; step++) {
      if ((await locator.count()) && (await locator.first().evaluate((element) => element === document.activeElement)))
        return;
      await page.keyboard.press(back ? "Shift+Tab" : "Tab");
    }
    throw new Error(`expected: Tab reaches ${locator}`);
  };
  await tabTo(page.getByLabel("Add a feature"));
  await page.keyboard.type("135");
  await page.getByRole("option").first().waitFor();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  const slider = page.getByRole("slider");
  await slider.waitFor();
  await tabTo(slider);
  const before = Number(await slider.getAttribute("aria-valuenow"));
  await page.keyboard.press("ArrowRight");
  await page.waitForFunction(
    ([element, was]) => Number(element.getAttribute("aria-valuenow")) > was,
    [await slider.elementHandle(), before],
  );
  await tabTo(page.getByLabel("Message"), true);
  await page.keyboard.type(" And the sky?");
  await page.keyboard.press("Enter");
  await page.getByText("tokens steered").waitFor({ timeout: 60_000 });
  expect((await api("GET", "/api/steering")).features.length === 1, "one knob is turned");
  await api("PUT", "/api/steering", { features: [] });
}
