/** A file of the server's, saved as a browser does it; with the key, which a plain link could not send. */
import { failureOf } from "./failure";
import { authorization } from "./key";

/** @throws Failure as the server tells it. */
export async function download(path: string, name: string): Promise<void> {
  const response = await fetch(path, { headers: authorization() });
  if (!response.ok) throw failureOf(await response.json().catch(() => null), response);
  saveAs(await response.blob(), name);
}

export function saveAs(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // the browser reads it after the click
}
