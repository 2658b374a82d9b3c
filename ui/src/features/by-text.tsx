/** Which features fire on a text: the strongest of the whole, and at each token. */
import { Button, Group, Select, Stack, Table, Text, Textarea } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { FeatureChip } from "@/components/feature-chip";
import { HeatMap } from "@/components/heat-map";
import { Empty, Failed } from "@/components/states";
import { api, told, type Schemas } from "@/lib/api";
import { short } from "@/lib/numbers";

export function ByText({ sae }: { sae: string }) {
  const [text, setText] = useState("");
  const inspect = useMutation({
    mutationFn: () => told(api.POST("/api/features/inspect", { body: { text, sae, top_k: 20, limit: 50 } })),
  });
  return (
    <Stack gap="sm">
      <Textarea
        label="Text"
        description="Read by the model as it is, without steering"
        autosize
        minRows={3}
        maxRows={12}
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
      />
      <Group>
        <Button disabled={!text.trim()} loading={inspect.isPending} onClick={() => inspect.mutate()}>
          Which features fire?
        </Button>
      </Group>
      {inspect.error && <Failed thrown={inspect.error} />}
      {inspect.data && <Found key={inspect.submittedAt} told={inspect.data} />}
    </Stack>
  );
}

type Inspection = Schemas["Inspection"];

function Found({ told }: { told: Inspection }) {
  const [wanted, choose] = useState<string | null>(null);
  const feature = told.features.find(({ index }) => String(index) === wanted) ?? told.features[0];
  if (!feature) return <Empty title="No feature fires on it" />;
  return (
    <Stack gap="sm">
      <Select
        label="Coloured by"
        searchable
        maw={420}
        data={told.features.map(({ index, label }) => ({
          value: String(index),
          label: `${label ?? `feature ${index}`} (${index})`,
        }))}
        value={String(feature.index)}
        allowDeselect={false}
        onChange={choose}
      />
      <HeatMap
        sae={told.sae}
        tokens={told.tokens.map(({ token, top }) => ({
          text: token,
          value: top.find(({ index }) => index === feature.index)?.activation ?? 0,
          top,
        }))}
        max={feature.max}
        label="Tokens, by activation"
      />
      <Text size="sm">
        {told.fired} features fire on it; the strongest {told.features.length} of {told.counted} counted tokens:
      </Text>
      <Table.ScrollContainer minWidth={420} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
        <Table aria-label="Features that fire on the text">
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Feature</Table.Th>
              <Table.Th>Largest</Table.Th>
              <Table.Th>Mean</Table.Th>
              <Table.Th>Tokens</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {told.features.map(({ index, label, max, mean, count }) => (
              <Table.Tr key={index}>
                <Table.Td>
                  <FeatureChip sae={told.sae} index={index} label={label} />
                </Table.Td>
                <Table.Td>{short(max)}</Table.Td>
                <Table.Td>{short(mean)}</Table.Td>
                <Table.Td>{count}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    </Stack>
  );
}
