/** One watched feature as it fires: its line, its last tokens, and in numbers the last and the largest. */
import { Card, ScrollArea, Table, Text } from "@mantine/core";
import { FeatureChip } from "@/components/feature-chip";
import { useTrace, type Sample } from "@/lib/activity";
import { useLabels } from "@/lib/labels";
import { short } from "@/lib/numbers";
import { Plot } from "./plot";

interface Props {
  sae: string;
  index: number;
  isTable: boolean;
}

export function LiveFeature({ sae, index, isTable }: Props) {
  const samples = useTrace(sae, index);
  const label = useLabels(sae).get(index)?.label;
  const last = samples.at(-1);
  const name = label ?? `feature ${index}`;
  return (
    <Card withBorder padding="xs" component="section" aria-label={`${name}, live`}>
      <FeatureChip sae={sae} index={index} label={label} />
      {/* what is newest, for those who measure how late it is */}
      <div data-feature={index} data-position={last?.position} data-request={last?.request} data-value={last?.value}>
        {isTable ? <Lines samples={samples} name={name} /> : <Plot samples={samples} name={name} />}
      </div>
      <Text size="sm">{last ? said(last, samples) : "No token yet."}</Text>
    </Card>
  );
}

const said = (last: Sample, samples: readonly Sample[]) =>
  [
    `${JSON.stringify(last.token)} ${short(last.value)}`,
    last.after !== null && `→ ${short(last.after)} after steering`,
    `· largest ${short(Math.max(...samples.map(({ value }) => value)))}`,
  ]
    .filter(Boolean)
    .join(" ");

const Lines = ({ samples, name }: { samples: readonly Sample[]; name: string }) => (
  <ScrollArea h={150} viewportProps={{ tabIndex: 0, "aria-label": `Last tokens of ${name}` }}>
    <Table aria-label={`Last activations of ${name}`}>
      <Table.Thead>
        <Table.Tr>
          <Table.Th>Token</Table.Th>
          <Table.Th>Position</Table.Th>
          <Table.Th>Activation</Table.Th>
          <Table.Th>After steering</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {samples
          .slice(-50)
          .reverse()
          .map((sample, at) => (
            <Table.Tr key={at}>
              <Table.Td>{JSON.stringify(sample.token)}</Table.Td>
              <Table.Td>{sample.position}</Table.Td>
              <Table.Td>{short(sample.value)}</Table.Td>
              <Table.Td>{sample.after === null ? "" : short(sample.after)}</Table.Td>
            </Table.Tr>
          ))}
      </Table.Tbody>
    </Table>
  </ScrollArea>
);
