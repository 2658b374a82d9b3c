/** What watched features did in all requests that are kept: how often, how strongly, and how that is spread. */
import { Anchor, Table } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { FeatureChip } from "@/components/feature-chip";
import { Histogram } from "@/components/histogram";
import { Empty, Failed, Loading } from "@/components/states";
import type { Schemas } from "@/lib/api";
import { useLabels } from "@/lib/labels";
import { percent, short } from "@/lib/numbers";
import { statistics } from "./queries";

export function StatisticsTable({ open }: { open: (id: string) => void }) {
  const { data, error, refetch } = useQuery(statistics);
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  if (data.features.length === 0)
    return <Empty title="Nothing was watched by name yet">Of each watched feature this says how often it fires.</Empty>;
  return (
    <Table.ScrollContainer minWidth={640} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
      <Table aria-label="Statistics of the watched features">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Feature</Table.Th>
            <Table.Th>Fires at</Table.Th>
            <Table.Th>Mean where it fires</Table.Th>
            <Table.Th>Largest</Table.Th>
            <Table.Th>Spread</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {data.features.map((told) => (
            <Line key={`${told.sae} ${told.feature}`} told={told} edges={data.edges} open={open} />
          ))}
        </Table.Tbody>
        <Table.Caption>{data.requests} requests are kept.</Table.Caption>
      </Table>
    </Table.ScrollContainer>
  );
}

interface LineProps {
  told: Schemas["FeatureStatistics"];
  edges: readonly number[];
  open: (id: string) => void;
}

function Line({ told, edges, open }: LineProps) {
  const label = useLabels(told.sae).get(told.feature)?.label;
  const { largest } = told;
  return (
    <Table.Tr>
      <Table.Td>
        <FeatureChip sae={told.sae} index={told.feature} label={label} />
      </Table.Td>
      <Table.Td>
        {percent(told.frequency)} of {told.tokens} tokens
      </Table.Td>
      <Table.Td>{short(told.mean_fired)}</Table.Td>
      <Table.Td>
        {largest && (
          <Anchor component="button" size="sm" onClick={() => open(largest.request_id)}>
            {short(largest.value)}
          </Anchor>
        )}
      </Table.Td>
      <Table.Td>
        <Histogram counts={told.histogram} edges={edges} name={label ?? `feature ${told.feature}`} />
      </Table.Td>
    </Table.Tr>
  );
}
