/** Connecting a client: the address, the model's name, and lines to paste. */
import { Card, Code, Group, Select, Stack, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Copy } from "@/components/copy";
import { Empty, Failed, Loading } from "@/components/states";
import { profiles, status } from "@/lib/queries";
import { snippets } from "./connect";

export function ConnectPanel() {
  const { data, error, refetch } = useQuery(status);
  const saved = useQuery(profiles()).data?.profiles ?? [];
  const [chosen, choose] = useState<string | null>(null);
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  if (!data.model) return <Empty title="No model is loaded">Load one first: clients ask for it by its name.</Empty>;
  const names = [data.model.name, ...saved.map(({ model_id }) => model_id).filter((id) => id !== null)];
  const model = chosen && names.includes(chosen) ? chosen : data.model.name;
  return (
    <Stack>
      <Group align="end">
        <Select
          label="Model"
          description="As it is, or steered by a profile"
          data={names}
          value={model}
          onChange={choose}
          allowDeselect={false}
          searchable
          w={340}
        />
        <Copy text={`${location.origin}/v1`} label="Copy the base URL" />
        <Copy text={model} label="Copy the model’s name" />
      </Group>
      <Text size="sm">
        The key may be anything, unless the server was started with MILLM_API_KEY. Without a profile in the name, a
        client gets what is active on the server.
      </Text>
      {snippets({ origin: location.origin, model }).map(({ client, where, text }) => (
        <Card key={client} withBorder component="section" aria-label={client}>
          <Group justify="space-between">
            <Title order={2} size="h5">
              {client}
            </Title>
            <Copy text={text} />
          </Group>
          <Text size="sm">{where}</Text>
          <Code block tabIndex={0} mt="xs" aria-label={`For ${client}`}>
            {text}
          </Code>
        </Card>
      ))}
    </Stack>
  );
}
