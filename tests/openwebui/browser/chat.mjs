// A person at Open WebUI's page: picks a model from the menu, writes messages, reads the answers as they grow.
import { readFileSync, writeSync } from 'node:fs';
import { chromium } from 'playwright-core';

const QUIET = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];
const PATIENCE = 180_000; // ms

const { url, chromium: executablePath, model, messages, picture } = JSON.parse(readFileSync(0, 'utf8'));

async function pick(page) {
  await page.locator('#model-selector-model-button').click();
  const options = page.locator('#model-selector-list [role=option]');
  await options.first().waitFor();
  const menu = await options.allInnerTexts();
  await options.filter({ hasText: model }).click();
  return menu.map((entry) => entry.trim().split('\n')[0]);
}

async function say(page, message, turn) {
  await page.locator('#chat-input').click();
  await page.keyboard.type(message);
  await page.keyboard.press('Enter');
  return await read(page, turn);
}

// What stood there at each look, until the buttons appear that Open WebUI shows under an answer that is done.
async function read(page, turn) {
  const shown = [];
  const isDone = page.locator('.copy-response-button').nth(turn);
  const answer = page.locator('#response-content-container').nth(turn);
  for (const until = Date.now() + PATIENCE; Date.now() < until && !(await isDone.count()); ) {
    await note(answer, shown);
    await page.waitForTimeout(100);
  }
  await isDone.waitFor();
  await note(answer, shown);
  return shown;
}

async function note(answer, shown) {
  const text = (await answer.count()) ? (await answer.innerText()).trim() : '';
  if (text && text !== shown.at(-1)) shown.push(text);
}

const browser = await chromium.launch({ executablePath, args: QUIET });
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
page.setDefaultTimeout(PATIENCE);
await page.goto(url, { waitUntil: 'domcontentloaded' });
await page.locator('#chat-input').waitFor();
const menu = await pick(page);
const answers = [];
for (const [turn, message] of messages.entries()) answers.push(await say(page, message, turn));
await page.screenshot({ path: picture });
await browser.close();
writeSync(1, JSON.stringify({ menu, answers }));
