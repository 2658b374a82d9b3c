/** How often a feature fires how strongly: a bar for each power of two. */
import { short } from "@/lib/numbers";

interface Props {
  counts: readonly number[];
  /** Where bars begin and end: one less than there are bars. */
  edges: readonly number[];
  name: string;
}

const [WIDTH, HEIGHT] = [160, 36];

export function Histogram({ counts, edges, name }: Props) {
  const most = Math.max(...counts, 1);
  const width = WIDTH / counts.length;
  const between = (at: number) =>
    at === 0
      ? `up to ${short(edges[0]!)}`
      : at < edges.length
        ? `${short(edges[at - 1]!)} to ${short(edges[at]!)}`
        : `above ${short(edges.at(-1)!)}`;
  const said = counts.flatMap((count, at) => (count > 0 ? [`${between(at)}: ${count}`] : [])).join(", ");
  return (
    <svg width={WIDTH} height={HEIGHT} role="img" aria-label={`Activations of ${name}: ${said || "none"}`}>
      <title>{said || "none"}</title>
      {counts.map((count, at) => (
        <rect
          key={at}
          x={at * width}
          width={Math.max(1, width - 1)}
          y={HEIGHT - (HEIGHT * count) / most}
          height={(HEIGHT * count) / most}
          fill="var(--millm-before)"
        />
      ))}
    </svg>
  );
}
