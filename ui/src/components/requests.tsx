/** The last requests: who asked, how much, how fast, steered by what; a row opens it. */
import { Anchor, Badge, Button, Group, Select, Stack, Switch, Table, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Empty, Failed, Loading } from "./states";
import type { Schemas } from "@/lib/api";
import { clock, count, duration } from "@/lib/numbers";
import { rows } from "@/lib/queries";

type Row = Schemas["RequestRecord"];

export function Requests({ open }: { open: (id: string) => void }) {
  const [client, setClient] = useState<string | null>(null);
  const [profile, setProfile] = useState<string | null>(null);
  const [withTasks, setWithTasks] = useState(false);
  const found = useInfiniteQuery(rows({ client: client ?? undefined, profile: profile ?? undefined }));
  if (found.error) return <Failed thrown={found.error} retry={() => void found.refetch()} />;
  if (!found.data) return <Loading />;
  const all = found.data.pages.flat();
  const shown = withTasks ? all : all.filter(({ task }) => !task);
  const hidden = all.length - shown.length;
  return (
    <Stack gap="sm">
      <Group align="end">
        <Select
          size="xs"
          label="Client"
          placeholder="all"
          clearable
          clearButtonProps={{ "aria-label": "All clients" }}
          data={named(all, client, (row) => row.client)}
          value={client}
          onChange={setClient}
        />
        <Select
          size="xs"
          label="Profile"
          placeholder="all"
          clearable
          clearButtonProps={{ "aria-label": "All profiles" }}
          data={named(all, profile, (row) => row.profile)}
          value={profile}
          onChange={setProfile}
        />
        <Switch
          label={`Background tasks${hidden ? ` (${hidden} hidden)` : ""}`}
          description="Titles, tags: what chat clients ask behind the chat"
          checked={withTasks}
          onChange={(event) => setWithTasks(event.currentTarget.checked)}
        />
      </Group>
      {shown.length === 0 ? (
        <Empty title="No request yet">Ask something in the playground, or from any chat client.</Empty>
      ) : (
        <Table.ScrollContainer minWidth={640} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
          <Table highlightOnHover aria-label="The last requests">
            <Table.Thead>
              <Table.Tr>
                <Table.Th>When</Table.Th>
                <Table.Th>From</Table.Th>
                <Table.Th>Tokens</Table.Th>
                <Table.Th>Time</Table.Th>
                <Table.Th>Steered by</Table.Th>
                <Table.Th>End</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {shown.map((row) => (
                <Line key={row.id} row={row} open={() => open(row.id)} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {found.hasNextPage && (
        <Button size="xs" variant="default" loading={found.isFetching} onClick={() => void found.fetchNextPage()}>
          Older
        </Button>
      )}
    </Stack>
  );
}

const named = (all: readonly Row[], chosen: string | null, of: (row: Row) => string | null) =>
  [...new Set([chosen, ...all.map(of)])].filter((name): name is string => Boolean(name)).sort();

const Line = ({ row, open }: { row: Row; open: () => void }) => (
  <Table.Tr>
    <Table.Td>
      <Anchor
        component="button"
        size="sm"
        onClick={open}
        title={row.id}
        aria-label={`Open the request of ${clock(row.began)}`}
      >
        {clock(row.began)}
      </Anchor>
    </Table.Td>
    <Table.Td>
      {row.client} <Text size="xs">{row.endpoint.replace("/v1/", "")}</Text>
      {row.task && <Badge variant="default">{row.task}</Badge>}
    </Table.Td>
    <Table.Td>
      {count(row.prompt_tokens)} → {count(row.completion_tokens)}
    </Table.Td>
    <Table.Td>
      {duration(row.seconds)}
      {row.first_token_seconds !== null && <Text size="xs">first {duration(row.first_token_seconds)}</Text>}
    </Table.Td>
    <Table.Td>{row.profile ?? (row.tokens_steered > 0 ? "knobs" : "nothing")}</Table.Td>
    <Table.Td>
      {row.end}
      {row.error && <Text size="xs">{row.error}</Text>}
    </Table.Td>
  </Table.Tr>
);
