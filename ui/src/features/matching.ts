/** Labels that have all of the words, in any order. */
import type { Label } from "@/lib/labels";

export function matching(labels: readonly Label[], words: string): readonly Label[] {
  const wanted = words.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length === 0) return labels;
  return labels.filter(({ index, label }) => {
    const text = `${index} ${label.toLocaleLowerCase()}`;
    return wanted.every((word) => text.includes(word));
  });
}
