/** How coherent the answers of a sweep are: what the base model thinks of them, and how much they repeat. */
import { Stack, Table, Title } from "@mantine/core";
import type { Schemas } from "@/lib/api";
import { percent, short } from "@/lib/numbers";

type Means = Schemas["ScaleMeans"];
const [WIDTH, HEIGHT] = [420, 120];

export function Coherence({ means }: { means: readonly Means[] }) {
  const known = means.filter((mean) => mean.scale !== null && mean.perplexity !== null);
  return (
    <Stack gap={4}>
      <Title order={2} size="h5">
        Coherence
      </Title>
      {known.length > 1 && <Line means={known} />}
      <Table.ScrollContainer minWidth={420} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
        <Table aria-label="Coherence by scale">
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Scale</Table.Th>
              <Table.Th>Perplexity under the base model</Table.Th>
              <Table.Th>KL per token</Table.Th>
              <Table.Th>Repetition</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {means.map(({ scale, perplexity, kl, repetition }) => (
              <Table.Tr key={String(scale)}>
                <Table.Td>{scale === null ? "base" : short(scale)}</Table.Td>
                <Table.Td>{perplexity === null ? "" : short(perplexity)}</Table.Td>
                <Table.Td>{kl === null ? "" : short(kl)}</Table.Td>
                <Table.Td>{percent(repetition)}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    </Stack>
  );
}

/** Logarithmic: perplexity grows by factors. */
function Line({ means }: { means: readonly Means[] }) {
  const scales = means.map(({ scale }) => scale!);
  const heights = means.map(({ perplexity }) => Math.log(perplexity!));
  const place = (value: number, all: readonly number[], size: number) => {
    const [least, most] = [Math.min(...all), Math.max(...all)];
    return most === least ? size / 2 : (size * (value - least)) / (most - least);
  };
  const points = means.map(
    (_, at) =>
      `${8 + place(scales[at]!, scales, WIDTH - 16)},${HEIGHT - 8 - place(heights[at]!, heights, HEIGHT - 16)}`,
  );
  return (
    <svg
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      style={{ maxWidth: WIDTH, width: "100%" }}
      role="img"
      aria-label="Perplexity by scale, on a logarithmic axis; the table below has the numbers"
    >
      <polyline points={points.join(" ")} fill="none" stroke="var(--millm-before)" strokeWidth={2} />
      {points.map((point) => (
        <circle key={point} cx={point.split(",")[0]} cy={point.split(",")[1]} r={3} fill="var(--millm-before)" />
      ))}
    </svg>
  );
}
