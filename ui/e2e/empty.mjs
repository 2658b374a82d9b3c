/** A server with nothing loaded and nothing kept: each page says so, and what to do next. */
import { eachLook, opened, PAGES } from "./every-page.mjs";

const NEXT = {
  "/": ["No model is loaded", "Choose a model"],
  "/models": ["The library is empty", "Look at it"],
  "/saes": ["No SAE is attached", "Look at it"],
  "/monitor": ["No SAE is attached", "Choose an SAE"],
  "/features": ["No SAE is attached", "Choose an SAE"],
  "/profiles": ["No profile yet", "Import"],
};

export default async function ({ url, newPage, accessible }) {
  await eachLook(newPage, async (page, look) => {
    for (const path of PAGES) {
      await opened(page, url, path);
      for (const words of NEXT[path] ?? [])
        await page.getByRole("main").getByText(words, { exact: true }).first().waitFor();
      await accessible(page, `${path}, empty (${look})`);
    }
  });
}
