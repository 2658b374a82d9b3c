/** Every page, in light and dark, wide and narrow: accessible, and no wider than the screen. */
export const PAGES = ["/", "/models", "/saes", "/monitor", "/features", "/profiles", "/server", "/settings"];

export async function eachLook(newPage, look) {
  for (const colorScheme of ["light", "dark"])
    for (const width of [1280, 360]) {
      const page = await newPage({ viewport: { width, height: 900 }, colorScheme });
      await look(page, `${colorScheme}, ${width} pixels`);
      await page.close();
    }
}

export async function opened(page, url, path) {
  await page.goto(`${url}/ui${path}`);
  await page.getByRole("heading", { level: 1 }).waitFor();
  await page.waitForFunction(() => !document.querySelector("main [aria-busy=true]"));
}

export default async function ({ url, newPage, accessible }) {
  await eachLook(newPage, async (page, look) => {
    for (const path of PAGES) {
      await opened(page, url, path);
      await accessible(page, `${path} (${look})`);
    }
  });
}
