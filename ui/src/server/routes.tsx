/** The server's HTTP surface, read from its own OpenAPI document: nothing is fetched from elsewhere. */
import { Accordion, Anchor, Badge, Group, List, Stack, Text, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Copy } from "@/components/copy";
import { Empty, Failed, Loading } from "@/components/states";
import { Failure } from "@/lib/failure";
import { routesOf, type Document, type Route } from "./openapi";

export function Routes() {
  const [words, setWords] = useState("");
  const { data, error, refetch } = useQuery({
    queryKey: ["openapi"],
    queryFn: async () => {
      const response = await fetch("/openapi.json");
      if (!response.ok) throw new Failure("The document cannot be read.", "unexpected", response.status);
      return routesOf((await response.json()) as Document);
    },
    staleTime: Infinity,
  });
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  const shown = data.filter(({ method, path, summary }) =>
    `${method} ${path} ${summary}`.toLowerCase().includes(words.trim().toLowerCase()),
  );
  return (
    <Stack gap="sm">
      <Group align="end">
        <TextInput
          label="Search"
          value={words}
          onChange={(event) => setWords(event.currentTarget.value)}
          flex={1}
          maw={420}
        />
        <Anchor href="/openapi.json" target="_blank">
          openapi.json
        </Anchor>
      </Group>
      {shown.length === 0 && <Empty title="No route is like that" />}
      <Accordion variant="separated" multiple order={2}>
        {shown.map((route, at) => (
          <Accordion.Item key={`${route.method} ${route.path}`} value={String(at)}>
            <Accordion.Control>
              <Group gap="xs">
                <Badge variant="default" w={80}>
                  {route.method}
                </Badge>
                <Text ff="monospace" size="sm" style={{ overflowWrap: "anywhere" }}>
                  {route.path}
                </Text>
                <Text size="sm">{route.summary}</Text>
              </Group>
            </Accordion.Control>
            <Accordion.Panel>
              <Details route={route} />
            </Accordion.Panel>
          </Accordion.Item>
        ))}
      </Accordion>
    </Stack>
  );
}

const Details = ({ route }: { route: Route }) => (
  <Stack gap="xs">
    {route.description && <Text size="sm">{route.description}</Text>}
    {route.parameters.length > 0 && (
      <List size="sm">
        {route.parameters.map(({ name, place, description, isRequired }) => (
          <List.Item key={`${place} ${name}`}>
            <code>{name}</code> ({place}
            {isRequired && ", required"}){description && `: ${description}`}
          </List.Item>
        ))}
      </List>
    )}
    {route.body && (
      <Text size="sm">
        Body: <code>{route.body}</code>
      </Text>
    )}
    {route.answer && (
      <Text size="sm">
        Answer: <code>{route.answer}</code>
      </Text>
    )}
    <Group>
      <Copy text={`curl -X ${route.method} '${location.origin}${route.path}'`} label="Copy as curl" />
    </Group>
  </Stack>
);
