/** Where two answers differ, word by word: the longest common subsequence of words (Hunt and Szymanski's problem). */
export interface Piece {
  text: string;
  isShared: boolean;
}

const words = (text: string): string[] => text.match(/\s*\S+\s*?/g) ?? [];

/** Both texts in pieces that the other has or has not, each joining to the whole text (up to trailing space). */
export function diff(left: string, right: string): [Piece[], Piece[]] {
  const [a, b] = [words(left), words(right)];
  const lengths = commonLengths(a, b);
  const [shared, other] = [new Set<number>(), new Set<number>()];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (same(a[i], b[j])) {
      shared.add(i++);
      other.add(j++);
    } else if (at(lengths, i + 1, j) >= at(lengths, i, j + 1)) i++;
    else j++;
  }
  return [pieces(a, shared), pieces(b, other)];
}

/** Number of the first word (from 1) at which two answers part; null while one only goes on where the other ends. */
export function firstDifference(left: string, right: string): number | null {
  const [a, b] = [words(left), words(right)];
  const place = a.findIndex((word, index) => index < b.length && !same(word, b[index]));
  return place < 0 ? null : place + 1;
}

const same = (a?: string, b?: string): boolean => a?.trim() === b?.trim();

const at = (lengths: readonly Uint16Array[], i: number, j: number): number => lengths[i]?.[j] ?? 0;

/** Of the rests from i and from j on. */
function commonLengths(a: readonly string[], b: readonly string[]): Uint16Array[] {
  const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      lengths[i]![j] = same(a[i], b[j])
        ? at(lengths, i + 1, j + 1) + 1
        : Math.max(at(lengths, i + 1, j), at(lengths, i, j + 1));
  return lengths;
}

function pieces(all: readonly string[], shared: ReadonlySet<number>): Piece[] {
  const joined: Piece[] = [];
  all.forEach((text, index) => {
    const last = joined.at(-1);
    if (last?.isShared === shared.has(index)) last.text += text;
    else joined.push({ text, isShared: shared.has(index) });
  });
  return joined;
}
