/** Each page while it waits, when it is refused, and after another try: never blank, and always with a way on. */
import { PAGES } from "./every-page.mjs";

const REFUSAL = {
  status: 403,
  contentType: "application/json",
  body: JSON.stringify({ error: { message: "Not today.", type: "permission_error", param: null, code: "not_today" } }),
};

export default async function ({ url, newPage, expect, accessible }) {
  for (const path of PAGES) {
    const page = await newPage();
    let answer = null;
    const held = [];
    await page.route("**/api/**", (route) => (answer ? answer(route) : held.push(route)));
    await page.goto(`${url}/ui${path}`);
    await page.getByRole("status", { name: "Loading" }).first().waitFor();
    await accessible(page, `${path}, loading`);

    answer = (route) => route.fulfill(REFUSAL);
    await Promise.all(held.map((route) => route.fulfill(REFUSAL)));
    const alert = page.getByRole("main").getByRole("alert").first();
    await alert.getByText("not_today").waitFor();
    expect(await alert.getByText("Not today.").isVisible(), `${path} says what the server said`);
    await accessible(page, `${path}, refused`);

    answer = (route) => route.continue();
    const again = page.getByRole("main").getByRole("button", { name: "Try again" });
    for (let tries = 0; tries < 10 && (await again.count()); tries++) {
      await again.first().click(); // behind it may stand another that was refused
      await page.waitForTimeout(300);
    }
    await page.waitForFunction(() => !document.querySelector("main [aria-busy=true], main [role=alert]"));
    await page.close();
  }
}
