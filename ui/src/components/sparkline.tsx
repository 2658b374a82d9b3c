/** The last activations of a feature as a small line. */
import { Text } from "@mantine/core";
import { useTrace } from "@/lib/activity";
import { short } from "@/lib/numbers";

const [WIDTH, HEIGHT, MOST] = [120, 24, 60];

export function Sparkline({ sae, index, name }: { sae: string; index: number; name: string }) {
  const values = useTrace(sae, index)
    .slice(-MOST)
    .map(({ value }) => value);
  const last = values.at(-1);
  if (last === undefined) return null;
  const most = Math.max(...values, Number.MIN_VALUE);
  const points = values.map(
    (value, at) => `${(at * WIDTH) / (MOST - 1)},${HEIGHT - 1 - (HEIGHT - 2) * (value / most)}`,
  );
  return (
    <>
      <svg width={WIDTH} height={HEIGHT} role="img" aria-label={`Last activations of ${name}: now ${short(last)}`}>
        <polyline points={points.join(" ")} fill="none" stroke="var(--millm-before)" strokeWidth={1.5} />
      </svg>
      <Text size="xs">fires {short(last)}</Text>
    </>
  );
}
