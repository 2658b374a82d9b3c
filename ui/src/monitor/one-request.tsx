/** One request: its receipt, its tokens coloured by a feature, and what fired most. */
import { Card, Group, SegmentedControl, Select, Stack, Switch, Text } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { ConfirmDelete } from "@/components/confirm-delete";
import { HeatMap } from "@/components/heat-map";
import { Empty, Failed, Loading } from "@/components/states";
import { failed, said } from "@/components/toast";
import { api, told } from "@/lib/api";
import { useLabels } from "@/lib/labels";
import { client } from "@/lib/queries";
import { firedIn, partsOf, valueAt, type Tracked } from "./fired";
import { FiredTable } from "./fired-table";
import { one } from "./queries";
import { Receipt } from "./receipt";
import { TokenTable } from "./token-table";
import { Words } from "./words";

export function OneRequest({ id, closed }: { id: string; closed: () => void }) {
  const { data, error, refetch } = useQuery(one(id));
  const forget = useMutation({
    mutationFn: () => told(api.DELETE("/api/requests/{id}", { params: { path: { id } } })),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["requests"] });
      void client.invalidateQueries({ queryKey: ["statistics"] });
      said("It is forgotten.");
      closed();
    },
    onError: failed,
  });
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  const parts = partsOf(data.activations);
  return (
    <Stack>
      <Receipt row={data.request} />
      <Words told={data} />
      {parts.length === 0 ? (
        <Empty title="Nothing was watched in it">
          Watch features in the monitor, or ask for “activations” in the request, and its tokens are shown here.
        </Empty>
      ) : (
        <Activations parts={parts} />
      )}
      <Group>
        <ConfirmDelete name="this request" what="The server forgets it." remove={() => forget.mutate()} />
      </Group>
    </Stack>
  );
}

const titleOf = ({ sae, index }: Tracked, parts: readonly Tracked[][]) =>
  parts.some(([first]) => first!.index > 0) ? `${sae}, answer ${index + 1}` : sae;

function Activations({ parts }: { parts: readonly Tracked[][] }) {
  const [part, setPart] = useState("0");
  const [wanted, setFeature] = useState<string | null>(null);
  const [isAfter, setAfter] = useState(false);
  const [isTable, setTable] = useState(false);
  const tokens = parts[Number(part)]!;
  const { sae } = tokens[0]!;
  const labels = useLabels(sae);
  const fired = firedIn(tokens);
  const feature = fired.find(({ index }) => String(index) === wanted) ?? fired[0];
  const hasAfter = tokens.some((token) => token.after ?? token.top_after);
  if (!feature) return <Empty title="Nothing fired at its tokens" />;
  const shown = tokens.map((token) => ({
    text: token.token,
    value: valueAt(token, feature.index, isAfter && hasAfter),
    after: isAfter ? null : valueAt(token, feature.index, true),
    isGenerated: token.generated,
    top: ((isAfter ? token.top_after : token.top) ?? []).map(([index, activation]) => ({
      index: index!,
      activation: activation!,
      label: labels.get(index!)?.label,
    })),
  }));
  const largest = Math.max(...shown.map(({ value }) => value ?? 0), 0);
  return (
    <Card withBorder component="section" aria-label="Activations">
      <Stack gap="sm">
        <Group align="end">
          {parts.length > 1 && (
            <Select
              size="xs"
              label="Of"
              data={parts.map((part, at) => ({ value: String(at), label: titleOf(part[0]!, parts) }))}
              value={part}
              allowDeselect={false}
              onChange={(next) => setPart(next ?? "0")}
            />
          )}
          <Select
            size="xs"
            label="Coloured by"
            searchable
            w={280}
            data={fired.map(({ index }) => ({
              value: String(index),
              label: `${labels.get(index)?.label ?? `feature ${index}`} (${index})`,
            }))}
            value={String(feature.index)}
            allowDeselect={false}
            onChange={setFeature}
          />
          {hasAfter && (
            <SegmentedControl
              size="xs"
              aria-label="Before or after steering"
              data={["before steering", "after steering"]}
              value={isAfter ? "after steering" : "before steering"}
              onChange={(next) => setAfter(next === "after steering")}
            />
          )}
          <Switch label="As a table" checked={isTable} onChange={(event) => setTable(event.currentTarget.checked)} />
        </Group>
        {tokens.some(({ token }) => token === null) && (
          <Text size="sm">▢ is a token whose text is not kept: MILLM_HISTORY_TEXTS says which are.</Text>
        )}
        {isTable ? (
          <TokenTable tokens={shown} />
        ) : (
          <HeatMap
            sae={sae}
            tokens={shown}
            max={labels.get(feature.index)?.max_act ?? largest}
            label="Tokens, by activation"
          />
        )}
        <FiredTable sae={sae} fired={fired} labels={labels} tokens={tokens.length} />
      </Stack>
    </Card>
  );
}
