/** The first minute: the page is opened, Enter is pressed, and two answers stand side by side; then branches of it. */
import { gzipSync } from "node:zlib";

const MOST_BYTES = 350_000;

export default async function ({ url, newPage, expect, accessible, picture }) {
  const page = await newPage();
  const files = [];
  page.on("response", (response) => /\.(js|css)$/.test(response.url()) && files.push(response.body()));
  await page.goto(`${url}/ui/`);
  const message = page.getByLabel("Message");
  await message.waitFor();
  expect(await message.evaluate((element) => element === document.activeElement), "the cursor is where one writes");
  const bytes = (await Promise.all(files)).reduce((sum, file) => sum + gzipSync(file).length, 0);
  expect(0 < bytes && bytes <= MOST_BYTES, `the first page is small: ${bytes} bytes gzipped`);
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

  // edited, the second question is a branch beside the old one; a third goes on from the first turn
  await page.getByRole("button", { name: "Edit the question" }).last().click();
  expect((await message.inputValue()) === "Tell me everything that you know about ships.", "it is there to be edited");
  await message.fill("Hello");
  await page.keyboard.press("Enter");
  const branches = page.getByRole("group", { name: "Branches" });
  await branches.getByText("2 of 2").waitFor();
  await page.getByRole("button", { name: "Ask", exact: true }).waitFor({ timeout: 90_000 });
  await branches.getByRole("button", { name: "The branch before" }).click();
  await page.getByText("Tell me everything that you know about ships.").waitFor();
  await page.getByRole("button", { name: "Go on from here anew" }).first().click();
  expect((await page.locator("[data-column]").count()) === 2, "only the first turn is left in sight");
  await page.getByRole("group", { name: "Prompts to try" }).getByRole("button").first().click();
  await page.keyboard.press("Escape");
  expect((await message.inputValue()).length > 0, "a prompt of the profile is there to be asked");
  await accessible(page, "branches");
  return { bytes };
}
