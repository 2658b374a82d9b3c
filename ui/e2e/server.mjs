/** What runs, who is being answered, and ending that; how to connect; what the server says of itself. */
import { apiOf } from "./api.mjs";

export default async function ({ url, newPage, expect, accessible }) {
  const { model } = await apiOf(url)("GET", "/api/status");
  const page = await newPage();
  await page.goto(`${url}/ui/server`);
  await page.getByRole("banner").getByText(model.name).waitFor();
  const python = await page.getByLabel("For Python, openai").innerText();
  expect(python.includes(`${url}/v1`) && python.includes(model.name), "a client is told where, and whom to ask for");

  const body = {
    model: model.name,
    max_tokens: 2000,
    ignore_eos: true,
    messages: [{ role: "user", content: "Go on" }],
  };
  const ended = fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Millm-Source": "a long one" },
    body: JSON.stringify(body),
  });
  await page.getByRole("tab", { name: "Queue" }).click();
  await page.getByRole("button", { name: "End the request of a long one" }).click();
  await page.getByText("Nobody is being answered now").waitFor();
  const { error } = await (await ended).json();
  expect(error.code === "request_cancelled", `its client is told: ${error.code}`);

  await page.getByRole("tab", { name: "Requests" }).click();
  await page
    .getByRole("row", { name: /a long one/ })
    .getByRole("button")
    .click();
  await page.getByRole("heading", { name: "A request", level: 1 }).waitFor();
  await page.getByText("MILLM_HISTORY_TEXTS=all").waitFor();
  await page.goto(`${url}/ui/server`);

  await page.getByRole("tab", { name: "Logs" }).click();
  await page.getByText("engine.runner").first().waitFor();
  await accessible(page, "the log");
  await page.getByRole("tab", { name: "Hardware" }).click();
  await page.getByRole("table", { name: "Machine" }).waitFor();
  await accessible(page, "the hardware");
  await page.getByRole("tab", { name: "API" }).click();
  await page.getByRole("textbox", { name: "Search" }).fill("queue");
  await page.getByRole("button", { name: /cancel/ }).click();
  await page.getByText("request_cancelled").waitFor();
  await accessible(page, "the API");
  await page.goto(`${url}/ui/settings`);
  await page.getByRole("textbox", { name: "Search" }).fill("port");
  await page
    .getByRole("row", { name: /MILLM_PORT/ })
    .getByText("command line")
    .waitFor();
}
