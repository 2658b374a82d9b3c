/** Whether an answer goes round in circles, the usual sign of too much strength. A hint: it changes nothing. */
const WORDS = 4;
const FEWEST = 20;
const TOO_MUCH = 0.35;

/** Share of the groups of four words that were there before; of answers of under twenty words 0. */
export function repetition(text: string): number {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length < FEWEST) return 0;
  const groups = words.slice(WORDS - 1).map((_, index) => words.slice(index, index + WORDS).join(" "));
  return 1 - new Set(groups).size / groups.length;
}

export const isIncoherent = (text: string): boolean => repetition(text) > TOO_MUCH || /(.)\1{24}/s.test(text);
