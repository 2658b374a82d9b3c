/** What Hugging Face has under some words: asked when told to, never while somebody types. */
import { Anchor, Badge, Stack, Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Empty, Failed, Loading } from "@/components/states";
import { count } from "@/lib/numbers";
import { searched } from "./queries";

export function Found({ words, choose }: { words: string; choose: (id: string) => void }) {
  const { data, error, refetch } = useQuery(searched(words));
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading rows={3} label={`Searching for ${words}`} />;
  if (data.length === 0)
    return <Empty title={`No model is called “${words}”`}>Only those with safetensors are listed.</Empty>;
  return (
    <Stack gap={4} role="status">
      <Table.ScrollContainer minWidth={480} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
        <Table aria-label="Found on Hugging Face">
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Model</Table.Th>
              <Table.Th>Parameters</Table.Th>
              <Table.Th>Known SAEs</Table.Th>
              <Table.Th>Downloads a month</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {data.map((model) => (
              <Table.Tr key={model.id}>
                <Table.Td style={{ overflowWrap: "anywhere" }}>
                  <Anchor component="button" size="sm" onClick={() => choose(model.id)}>
                    {model.id}
                  </Anchor>{" "}
                  {model.gated && <Badge variant="default">asks for a licence</Badge>}
                </Table.Td>
                <Table.Td>{model.parameters === null ? "not told" : count(model.parameters)}</Table.Td>
                <Table.Td>{count(model.known_saes)}</Table.Td>
                <Table.Td>{count(model.downloads)}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Text size="xs">The most fetched first, as Hugging Face tells it.</Text>
    </Stack>
  );
}
