/** Who is being answered, or waits for that; any of them can be ended. */
import { Button, Stack, Table, Text } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { Empty, Failed, Loading } from "@/components/states";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { count, duration } from "@/lib/numbers";
import { client, status } from "@/lib/queries";

const KEY = ["queue"];

export function Queue() {
  const { data, error, refetch } = useQuery({
    queryKey: KEY,
    queryFn: async () => (await told(api.GET("/api/queue"))).requests,
    refetchInterval: 1000,
  });
  const server = useQuery({ ...status, refetchInterval: 1000 }).data;
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  return (
    <Stack gap="sm">
      {server && (
        <Text size="sm" role="status">
          {server.running} sequences run, {server.waiting} wait.
        </Text>
      )}
      {data.length === 0 ? (
        <Empty title="Nobody is being answered now" />
      ) : (
        <Table.ScrollContainer minWidth={560} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
          <Table aria-label="Open requests">
            <Table.Thead>
              <Table.Tr>
                <Table.Th>From</Table.Th>
                <Table.Th>Model</Table.Th>
                <Table.Th>Prompt</Table.Th>
                <Table.Th>Since</Table.Th>
                <Table.Th aria-label="End it" />
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {data.map((open) => (
                <Line key={open.id} open={open} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
    </Stack>
  );
}

function Line({ open }: { open: Schemas["RequestRecord"] }) {
  const cancel = useMutation({
    mutationFn: () => told(api.POST("/api/queue/{id}/cancel", { params: { path: { id: open.id } } })),
    onSuccess: () => said("It is ended; its client is told so."),
    onError: failed,
    onSettled: () => client.invalidateQueries({ queryKey: KEY }),
  });
  return (
    <Table.Tr>
      <Table.Td>
        {open.client} <Text size="xs">{open.task ?? open.endpoint.replace("/v1/", "")}</Text>
      </Table.Td>
      <Table.Td>{open.profile ? `${open.model}:${open.profile}` : open.model}</Table.Td>
      <Table.Td>
        {count(open.prompt_tokens)} tokens{open.choices > 1 && `, ${open.choices} answers`}
      </Table.Td>
      <Table.Td>
        {duration(open.seconds)}{" "}
        <Text size="xs">{open.first_token_seconds === null ? "nothing written yet" : "writes"}</Text>
      </Table.Td>
      <Table.Td>
        <Button
          size="xs"
          variant="default"
          loading={cancel.isPending}
          onClick={() => cancel.mutate()}
          aria-label={`End the request of ${open.client}`}
        >
          End
        </Button>
      </Table.Td>
    </Table.Tr>
  );
}
