/** The first minute: the page is opened, Enter is pressed, and two answers stand side by side. */
export default async function ({ url, newPage, expect, accessible, picture }) {
  const page = await newPage();
  await page.goto(`${url}/ui/`);
  const message = page.getByLabel("Message");
  await message.waitFor();
  expect(await message.evaluate((element) => element === document.activeElement), "the cursor is where one writes");
  await page.keyboard.press("Enter");
  const [base, steered] = ["Base model", "Steered"].map((name) =>
    page.locator(`[data-column="${name}"] [data-answer]`),
  );
  await page.waitForFunction(() => document.querySelectorAll("[data-column] [data-answer]").length === 2);
  await page.getByRole("button", { name: "Ask", exact: true }).waitFor({ timeout: 90_000 });
  const [plain, loud] = [await base.innerText(), await steered.innerText()];
  expect(plain.length > 50 && loud.length > 20, "both are answers");
  const capitals = (text) => (text.match(/[A-Z]/g) ?? []).length / (text.match(/[A-Za-z]/g) ?? []).length;
  expect(capitals(loud) > 0.5 && capitals(plain) < 0.2, `one yells: ${capitals(plain)} and ${capitals(loud)} capitals`);
  await accessible(page, "two answers");
  await picture(page, "two-answers");

  await message.fill("Tell me everything that you know about ships.");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByText("stopped").first().waitFor();
  const turns = await page.getByRole("button", { name: "Ask again" }).count();
  expect(turns === 2, `the stopped question stays: ${turns} turns`);
}
