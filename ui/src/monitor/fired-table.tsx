/** The features that fired in a message: largest, mean, and at how many tokens. */
import { Stack, Table, Text, Title } from "@mantine/core";
import { FeatureChip } from "@/components/feature-chip";
import type { Label } from "@/lib/labels";
import { short } from "@/lib/numbers";
import type { Fired } from "./fired";

interface Props {
  sae: string;
  fired: readonly Fired[];
  labels: ReadonlyMap<number, Label>;
  tokens: number;
}

const MOST = 30;

export const FiredTable = ({ sae, fired, labels, tokens }: Props) => (
  <Stack gap={4}>
    <Title order={2} size="h5">
      In the whole message
    </Title>
    <Table.ScrollContainer minWidth={420} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
      <Table aria-label="What fired in the message">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Feature</Table.Th>
            <Table.Th>Largest</Table.Th>
            <Table.Th>Mean</Table.Th>
            <Table.Th>Fires at</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {fired.slice(0, MOST).map((feature) => (
            <Table.Tr key={feature.index}>
              <Table.Td>
                <FeatureChip sae={sae} index={feature.index} label={labels.get(feature.index)?.label} />
              </Table.Td>
              <Table.Td>{short(feature.max)}</Table.Td>
              <Table.Td>{short(feature.mean)}</Table.Td>
              <Table.Td>
                {feature.count} of {feature.known}
                {feature.known < tokens && <Text size="xs">known where it is among the strongest</Text>}
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  </Stack>
);
