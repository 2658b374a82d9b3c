/** What fires now: a chart for each watched feature, a point per token. */
import { Button, Group, SimpleGrid, Stack, Switch, Text, Title } from "@mantine/core";
import { IconPlayerPause, IconPlayerPlay } from "@tabler/icons-react";
import { useState } from "react";
import type { Schemas } from "@/lib/api";
import { pause, usePaused } from "@/lib/activity";
import { useConnection } from "@/lib/live";
import { LiveFeature } from "./live-feature";

export function Live({ state }: { state: Schemas["MonitorState"] }) {
  const [isTable, setTable] = useState(false);
  const isPaused = usePaused();
  const connection = useConnection();
  const all = state.watch.flatMap(({ sae, features, active }) =>
    active ? features.map((index) => ({ sae, index })) : [],
  );
  return (
    <Stack gap="sm" component="section" aria-labelledby="live">
      <Group justify="space-between">
        <Title order={2} size="h4" id="live">
          Now
        </Title>
        <Group>
          <Switch label="As a table" checked={isTable} onChange={(event) => setTable(event.currentTarget.checked)} />
          <Button
            size="xs"
            variant="default"
            onClick={() => pause(!isPaused)}
            leftSection={
              isPaused ? <IconPlayerPlay size={14} aria-hidden /> : <IconPlayerPause size={14} aria-hidden />
            }
          >
            {isPaused ? "Go on" : "Pause"}
          </Button>
        </Group>
      </Group>
      {connection === "lost" && <Text size="sm">Nothing comes while the server is not connected.</Text>}
      {!state.on && <Text size="sm">Watching is switched off.</Text>}
      {state.on && all.length === 0 && (
        <Text size="sm">Watch a feature by name, and each token’s activation is drawn here as it is made.</Text>
      )}
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        {all.map(({ sae, index }) => (
          <LiveFeature key={`${sae} ${index}`} sae={sae} index={index} isTable={isTable} />
        ))}
      </SimpleGrid>
    </Stack>
  );
}
