/** The API key of this tab, where the server wants one: asked for once, kept until the tab is closed. */
const NAME = "millm.key";

export const apiKey = (): string | null => sessionStorage.getItem(NAME);

export function rememberKey(key: string): void {
  if (key) sessionStorage.setItem(NAME, key);
  else sessionStorage.removeItem(NAME);
}

export function authorization(): Record<string, string> {
  const key = apiKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}
