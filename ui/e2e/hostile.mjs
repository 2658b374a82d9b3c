/** Names, labels and answers that would be markup: they are text. */
import { apiOf } from "./api.mjs";

const EVIL = `<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>`;

export default async function ({ url, newPage, expect }) {
  const api = apiOf(url);
  const { saes } = await api("GET", "/api/status");
  const label = `/api/features/9/label?${new URLSearchParams({ sae: saes[0].sae })}`;
  await api("PUT", label, { label: EVIL });
  await api("POST", "/api/profiles", {
    name: "evil",
    description: EVIL,
    features: [{ index: 9, strength: 1, label: EVIL }],
  });
  try {
    const page = await newPage();
    await page.goto(`${url}/ui/profiles`);
    await page.getByText(EVIL).first().waitFor();
    await page.getByRole("button", { name: "Activate evil" }).click();
    await page.getByRole("button", { name: "Deactivate" }).waitFor();
    for (const path of ["/", `/features?sae=${encodeURIComponent(JSON.stringify(saes[0].sae))}&index=9`]) {
      await page.goto(`${url}/ui${path}`);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await page.waitForTimeout(500);
      expect((await page.evaluate(() => window.hurt)) === undefined, `${path} runs nothing of a label`);
    }
    expect((await page.getByLabel("Label", { exact: true }).inputValue()) === EVIL, "the label is text");
  } finally {
    await api("DELETE", "/api/profiles/evil?force=true");
    await api("DELETE", label);
  }
}
