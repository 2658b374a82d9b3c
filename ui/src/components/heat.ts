/** How strongly a token is coloured: on a logarithm's scale, so that what fires weakly is seen as well. */

/** → 0 where nothing fires, else 0.05 to 1 (Neuronpedia's scale: a tenth of the maximum is a third of the colour). */
export function heat(activation: number, max: number): number {
  if (!(activation > 0) || !(max > 0)) return 0;
  return 0.05 + 0.95 * Math.log10(1 + 9 * Math.min(1, activation / max));
}
