/** What runs, on every page: model, SAEs, profile, the master switch, the queue, memory, the connection. */
import {
  ActionIcon,
  Badge,
  Group,
  Progress,
  Switch,
  Text,
  Tooltip,
  useMantineColorScheme,
  type TextProps,
} from "@mantine/core";
import { IconDeviceDesktop, IconMoon, IconSun } from "@tabler/icons-react";
import { useMutation, useQuery } from "@tanstack/react-query";
import { failed } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { useConnection } from "@/lib/live";
import { bytes } from "@/lib/numbers";
import { client, hardware, status, steering } from "@/lib/queries";

export function Header() {
  const { data } = useQuery({ ...status, refetchInterval: ({ state }) => (state.data?.in_flight ? 2000 : false) });
  return (
    <Group gap="sm" wrap="nowrap" justify="space-between" flex={1} miw={0}>
      <Group gap="sm" wrap="nowrap" miw={0}>
        <Text fw={700} component="span">
          miLLM
        </Text>
        {data && <What status={data} visibleFrom="xs" />}
      </Group>
      <Group gap="sm" wrap="nowrap">
        {data && <Queue status={data} />}
        <Memory />
        <Master />
        <Dot />
        <Scheme />
      </Group>
    </Group>
  );
}

/** On a phone it stands below the header, which has no room for it. */
export function WhatBelow() {
  const { data } = useQuery(status);
  return data && <What status={data} hiddenFrom="xs" />;
}

type WhatProps = { status: Schemas["ServerStatus"] } & Pick<TextProps, "visibleFrom" | "hiddenFrom">;

function What({ status, ...where }: WhatProps) {
  const saes = status.saes.map((sae) => `${sae.sae} @ ${sae.layer}`).join(", ");
  const profile =
    status.steering && `${status.steering.profile ?? "unnamed"}${status.steering.is_modified ? " ● modified" : ""}`;
  return (
    <Text size="sm" truncate {...where} title={[status.model?.name, saes, profile].filter(Boolean).join(" · ")}>
      {status.model?.name ?? status.changing?.name ?? "no model"}
      {status.changing && ` (${status.changing.what}: ${status.changing.stage || "…"})`}
      {saes && ` · ${saes}`}
      {profile && ` · ${profile}`}
    </Text>
  );
}

const Queue = ({ status }: { status: Schemas["ServerStatus"] }) =>
  status.in_flight > 0 && (
    <Badge variant="default" visibleFrom="sm" title={`${status.running} run, ${status.waiting} wait`}>
      {status.in_flight} in flight
    </Badge>
  );

function Memory() {
  const { data } = useQuery({ ...hardware, refetchInterval: 10_000 });
  if (!data) return null;
  const gpu = data.gpus[0];
  const used = gpu ? gpu.used : data.memory.total - data.memory.available;
  const total = gpu ? gpu.total : data.memory.total;
  const said = `${bytes(used)} of ${bytes(total)} ${gpu ? "GPU memory" : "memory"} used; ${bytes(data.memory.ours)} by miLLM`;
  return (
    <Tooltip label={said}>
      <Progress value={(100 * used) / total} w={70} size="lg" aria-label={said} visibleFrom="sm" />
    </Tooltip>
  );
}

/** One key, or one click: all steering off and on again. */
function Master() {
  const { data } = useQuery(steering);
  const flip = useMutation({
    mutationFn: (on: boolean) => told(api.PATCH("/api/steering", { body: { on, version: data?.version } })),
    onSuccess: (state) => client.setQueryData(steering.queryKey, state),
    onError: (thrown) => {
      failed(thrown);
      void client.invalidateQueries({ queryKey: steering.queryKey });
    },
  });
  return (
    <Switch
      aria-label="Steering"
      label={
        <Text span size="sm" visibleFrom="sm">
          Steering
        </Text>
      }
      checked={data?.on ?? false}
      disabled={!data?.steering || flip.isPending}
      onChange={(event) => flip.mutate(event.currentTarget.checked)}
    />
  );
}

const SAID = { open: "connected", connecting: "connecting", lost: "not connected" };
const COLOUR = { open: "teal.9", connecting: "gray.7", lost: "red.9" };

function Dot() {
  const connection = useConnection();
  return (
    <Badge
      circle
      size="xs"
      color={COLOUR[connection]}
      role="status"
      aria-label={`Live events: ${SAID[connection]}`}
      title={SAID[connection]}
    />
  );
}

const NEXT = { auto: "light", light: "dark", dark: "auto" } as const;
const ICON = { auto: IconDeviceDesktop, light: IconSun, dark: IconMoon };

function Scheme() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const Icon = ICON[colorScheme];
  return (
    <ActionIcon
      variant="default"
      aria-label={`Colours: ${colorScheme}. Change to ${NEXT[colorScheme]}`}
      onClick={() => setColorScheme(NEXT[colorScheme])}
    >
      <Icon size={16} aria-hidden />
    </ActionIcon>
  );
}
