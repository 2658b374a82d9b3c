/** What is watched in every request: features by name, the strongest of all, before or after steering. */
import {
  Badge,
  Button,
  Card,
  CloseButton,
  Group,
  NumberInput,
  Select,
  Stack,
  Switch,
  Text,
  Title,
} from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { FindFeature } from "@/components/find-feature";
import { Empty } from "@/components/states";
import { failed } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { asAsked, useWatch } from "@/lib/knobs";
import { useLabels } from "@/lib/labels";
import { client, monitor, status } from "@/lib/queries";

type State = Schemas["MonitorState"];
type Watch = Schemas["WatchState"];

export function Watched({ state }: { state: State }) {
  const saes = useQuery(status).data?.saes ?? [];
  const watch = useWatch();
  const save = useMutation({
    mutationFn: (next: Partial<Pick<State, "on" | "follow_profile" | "watch">>) => {
      const { on, follow_profile, watch } = { ...state, ...next };
      return told(api.PUT("/api/monitor", { body: { on, follow_profile, watch: watch.map(asAsked) } }));
    },
    onSuccess: (next) => client.setQueryData(monitor.queryKey, next),
    onError: failed,
  });
  const change = (old: Watch, next: Watch | null) =>
    save.mutate({ watch: state.watch.flatMap((watch) => (watch !== old ? [watch] : next ? [next] : [])) });
  const missing = saes.filter(({ sae }) => !state.watch.some((watch) => watch.sae === sae));
  return (
    <Card withBorder component="section" aria-labelledby="watched">
      <Stack gap="sm">
        <Group justify="space-between">
          <Title order={2} size="h4" id="watched">
            Watched
          </Title>
          <Group>
            <Switch
              label="Watch"
              checked={state.on}
              onChange={(event) => save.mutate({ on: event.currentTarget.checked })}
            />
            <Switch
              label="and what the active profile names"
              checked={state.follow_profile}
              onChange={(event) => save.mutate({ follow_profile: event.currentTarget.checked })}
            />
          </Group>
        </Group>
        {saes.length === 0 && (
          <Empty
            title="No SAE is attached"
            action={
              <Button component={Link} to="/saes">
                Choose an SAE
              </Button>
            }
          >
            Features are seen through an SAE.
          </Empty>
        )}
        {state.watch.map((watch) => (
          <WatchedSae key={watch.sae} watch={watch} change={(next) => change(watch, next)} />
        ))}
        <Group align="end">
          <FindFeature
            saes={saes}
            label="Watch a feature"
            chosen={(sae, index) => watch.isWatched(sae, index) || watch.toggle(sae, index)}
          />
          {missing.map(({ sae }) => (
            <Button
              key={sae}
              size="xs"
              variant="default"
              onClick={() => save.mutate({ on: true, watch: [...state.watch, strongest(sae)] })}
            >
              Watch the strongest of {sae}
            </Button>
          ))}
        </Group>
      </Stack>
    </Card>
  );
}

const strongest = (sae: string): Watch => ({
  sae,
  features: [],
  top_k: 5,
  tokens: "generated",
  when: "before",
  sample_every: null,
  active: true,
});

function WatchedSae({ watch, change }: { watch: Watch; change: (next: Watch | null) => void }) {
  const labels = useLabels(watch.active ? watch.sae : "");
  return (
    <Stack gap={6}>
      <Group gap="xs">
        <Text fw={600} size="sm">
          {watch.sae}
        </Text>
        {!watch.active && <Badge variant="default">not attached</Badge>}
        <Button
          size="compact-xs"
          variant="default"
          onClick={() => change(null)}
          aria-label={`Remove ${watch.sae} from what is watched`}
        >
          Remove
        </Button>
      </Group>
      <Group gap={6}>
        {watch.features.map((index) => (
          <Badge
            key={index}
            variant="default"
            size="lg"
            tt="none"
            rightSection={
              <CloseButton
                size="xs"
                aria-label={`Watch feature ${index} no more`}
                onClick={() => change({ ...watch, features: watch.features.filter((other) => other !== index) })}
              />
            }
          >
            {labels.get(index)?.label ?? `feature ${index}`}
          </Badge>
        ))}
      </Group>
      <Group align="end" gap="sm">
        <NumberInput
          size="xs"
          w={130}
          label="Strongest of all"
          min={0}
          max={100}
          clampBehavior="strict"
          allowDecimal={false}
          value={watch.top_k}
          onBlur={(event) => {
            const top_k = Number(event.currentTarget.value);
            if (top_k !== watch.top_k) change({ ...watch, top_k });
          }}
        />
        <Select
          size="xs"
          w={130}
          label="Tokens"
          data={["generated", "prompt", "all"]}
          value={watch.tokens}
          allowDeselect={false}
          onChange={(tokens) => tokens && change({ ...watch, tokens: tokens as Watch["tokens"] })}
        />
        <Select
          size="xs"
          w={130}
          label="Steering"
          data={["before", "after", "both"]}
          value={watch.when}
          allowDeselect={false}
          onChange={(when) => when && change({ ...watch, when: when as Watch["when"] })}
        />
      </Group>
    </Stack>
  );
}
