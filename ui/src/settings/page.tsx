/** Settings: those of this browser tab, which can be changed here, and those that the server was started with. */
import {
  Button,
  Group,
  PasswordInput,
  SegmentedControl,
  Stack,
  Table,
  Text,
  TextInput,
  Title,
  useMantineColorScheme,
} from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Copy } from "@/components/copy";
import { Page } from "@/components/page";
import { Empty, Failed, Loading } from "@/components/states";
import { said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { apiKey, rememberKey } from "@/lib/key";
import { client } from "@/lib/queries";

export const SettingsPage = () => (
  <Page title="Settings">
    <ThisTab />
    <OfTheServer />
  </Page>
);

const SCHEMES = ["auto", "light", "dark"] as const;

function ThisTab() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const [key, setKey] = useState("");
  const use = () => {
    rememberKey(key.trim());
    setKey("");
    said(key.trim() ? "The key is used until this tab is closed." : "The key is forgotten.");
    void client.invalidateQueries();
  };
  return (
    <Stack gap="sm" component="section" aria-labelledby="tab">
      <Title order={2} size="h4" id="tab">
        This browser
      </Title>
      <Group>
        <Text size="sm">Colours</Text>
        <SegmentedControl
          aria-label="Colours"
          data={[...SCHEMES]}
          value={colorScheme}
          onChange={(next) => setColorScheme(next as (typeof SCHEMES)[number])}
        />
      </Group>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          use();
        }}
      >
        <Group align="end">
          <PasswordInput
            label="API key"
            description={apiKey() ? "One is in use; kept until this tab is closed" : "Only where the server wants one"}
            value={key}
            onChange={(event) => setKey(event.currentTarget.value)}
            w={320}
          />
          <Button type="submit" variant="default" disabled={!key.trim() && !apiKey()}>
            {key.trim() || !apiKey() ? "Use it" : "Forget it"}
          </Button>
        </Group>
      </form>
    </Stack>
  );
}

function OfTheServer() {
  const [words, setWords] = useState("");
  const { data, error, refetch } = useQuery({
    queryKey: ["settings"],
    queryFn: async () => (await told(api.GET("/api/settings"))).settings,
  });
  return (
    <Stack gap="sm" component="section" aria-labelledby="server">
      <Title order={2} size="h4" id="server">
        The server
      </Title>
      <Text size="sm">
        They hold until it is started again: set the variable in its environment or in a file .env, or give the option
        of the same name.
      </Text>
      {error && <Failed thrown={error} retry={() => void refetch()} />}
      {!data && !error && <Loading />}
      {data && (
        <>
          <TextInput label="Search" value={words} onChange={(event) => setWords(event.currentTarget.value)} maw={420} />
          <Settings all={data.filter((setting) => has(setting, words))} />
        </>
      )}
    </Stack>
  );
}

const has = ({ variable, meaning }: Schemas["Setting"], words: string) =>
  `${variable} ${meaning}`.toLowerCase().includes(words.trim().toLowerCase());

function Settings({ all }: { all: readonly Schemas["Setting"][] }) {
  if (all.length === 0) return <Empty title="No setting is like that" />;
  return (
    <Table.ScrollContainer minWidth={720} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
      <Table aria-label="Settings of the server">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Variable</Table.Th>
            <Table.Th>Value</Table.Th>
            <Table.Th>From</Table.Th>
            <Table.Th>Meaning</Table.Th>
            <Table.Th aria-label="Copy" />
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {all.map((setting) => (
            <Table.Tr key={setting.name}>
              <Table.Td>
                <code>{setting.variable}</code>
              </Table.Td>
              <Table.Td style={{ overflowWrap: "anywhere" }}>{shown(setting)}</Table.Td>
              <Table.Td>
                <Text size="sm" fw={setting.origin === "default" ? 400 : 700}>
                  {setting.origin}
                </Text>
              </Table.Td>
              <Table.Td>{setting.meaning}</Table.Td>
              <Table.Td>
                <Copy text={`${setting.variable}=${setting.value ?? ""}`} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function shown({ value, is_kept_back, origin, ...setting }: Schemas["Setting"]): string {
  if (is_kept_back && origin !== "default") return "set, and not told";
  return (value ?? setting.default) || "none";
}
