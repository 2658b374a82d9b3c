/** Numbers as they are written in a line. */

/** → null where something in it is no number. */
export function scalesOf(written: string): number[] | null {
  const parts = written.split(/[\s,;]+/).filter(Boolean);
  const scales = parts.map(Number);
  return scales.every(Number.isFinite) ? [...new Set(scales)] : null;
}
