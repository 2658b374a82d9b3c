/** The last lines of the server's log, without secrets; and all that a bug report needs, in one copy. */
import { Button, Group, ScrollArea, Select, Stack, Switch, Text, TextInput } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Empty, Failed, Loading } from "@/components/states";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { client, hardware, status } from "@/lib/queries";

type Level = "debug" | "info" | "warning" | "error";
type Line = Schemas["LogEntry"];

const lines = (level: Level) =>
  told(api.GET("/api/logs", { params: { query: { level, limit: 500 } } })).then(({ lines }) => lines);

export function Logs() {
  const [level, setLevel] = useState<Level>("info");
  const [words, setWords] = useState("");
  const [follows, setFollows] = useState(true);
  const { data, error, refetch } = useQuery({
    queryKey: ["logs", level],
    queryFn: () => lines(level),
    refetchInterval: follows && 2000,
  });
  const report = useMutation({
    mutationFn: async () => navigator.clipboard.writeText(await diagnostics()),
    onSuccess: () => said("Copied. It holds the version, hardware, status and the last lines."),
    onError: failed,
  });
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  const shown = data.filter((line) => written(line).toLowerCase().includes(words.trim().toLowerCase()));
  return (
    <Stack gap="sm">
      <Group align="end">
        <Select
          label="From"
          w={120}
          data={["debug", "info", "warning", "error"]}
          value={level}
          allowDeselect={false}
          onChange={(next) => next && setLevel(next as Level)}
        />
        <TextInput label="With the words" value={words} onChange={(event) => setWords(event.currentTarget.value)} />
        <Switch label="Follow" checked={follows} onChange={(event) => setFollows(event.currentTarget.checked)} />
        <Button variant="default" loading={report.isPending} onClick={() => report.mutate()}>
          Copy diagnostics
        </Button>
      </Group>
      {shown.length === 0 ? (
        <Empty title="No such line" />
      ) : (
        <ScrollArea h="60vh" viewportProps={{ tabIndex: 0, "aria-label": "Log, the newest line first" }}>
          <Stack gap={2} component="ol" style={{ listStyle: "none", padding: 0, margin: 0 }}>
            {shown.toReversed().map((line) => (
              <Text key={line.number} component="li" size="xs" ff="monospace" style={{ overflowWrap: "anywhere" }}>
                {written(line)}
              </Text>
            ))}
          </Stack>
        </ScrollArea>
      )}
    </Stack>
  );
}

function written({ time, level, event, fields }: Line): string {
  const more = Object.entries(fields as Record<string, unknown>).map(([name, value]) => `${name}=${String(value)}`);
  return [time, level, event, ...more].join(" ");
}

async function diagnostics(): Promise<string> {
  const [server, machine, last] = await Promise.all([
    client.fetchQuery(status),
    client.fetchQuery(hardware),
    lines("info"),
  ]);
  const page = { page: navigator.userAgent };
  return JSON.stringify({ ...page, status: server, hardware: machine, log: last.slice(-100).map(written) }, null, 2);
}
