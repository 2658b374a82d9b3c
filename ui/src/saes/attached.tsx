/** An SAE that is attached: where, what its self-check found, and taking it off again. */
import { Alert, Button, Card, Group, Stack, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation } from "@tanstack/react-query";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { bytes, count, percent, short } from "@/lib/numbers";
import { client, status } from "@/lib/queries";
import { useAttach } from "./attaching";

export function AttachedCard({ sae }: { sae: Schemas["SaeFacts"] }) {
  const attach = useAttach();
  const detach = useMutation({
    mutationFn: () => told(api.DELETE("/api/attachments/{sae}", { params: { path: { sae: sae.sae } } })),
    onSuccess: (state) => {
      client.setQueryData(status.queryKey, state);
      const id = said(
        <Group justify="space-between">
          <span>Detached {sae.sae}</span>
          <Button
            size="xs"
            variant="default"
            onClick={() => {
              notifications.hide(id);
              attach.mutate({ id: sae.sae, hook_point: sae.hook_point });
            }}
          >
            Undo
          </Button>
        </Group>,
      );
    },
    onError: failed,
  });
  return (
    <Card withBorder padding="sm" component="section" aria-label={`Attached: ${sae.sae}`}>
      <Stack gap={6}>
        <Group justify="space-between">
          <Text fw={600} style={{ overflowWrap: "anywhere" }}>
            {sae.sae} @ {sae.hook_point}
          </Text>
          <Button
            size="xs"
            variant="default"
            loading={detach.isPending}
            onClick={() => detach.mutate()}
            aria-label={`Detach ${sae.sae}`}
          >
            Detach
          </Button>
        </Group>
        <Text size="sm">{facts(sae).join(" · ")}</Text>
        {sae.warnings.map((warning) => (
          <Alert key={warning} variant="outline" color="orange">
            {warning}
          </Alert>
        ))}
      </Stack>
    </Card>
  );
}

const facts = (sae: Schemas["SaeFacts"]): string[] =>
  [
    `${count(sae.features)} features (${sae.architecture})`,
    sae.variance_explained !== null &&
      `explains ${percent(Number(sae.variance_explained.toPrecision(3)))} of the variance`,
    `${short(sae.l0)} active at a token`,
    `‖h‖ is ${short(sae.residual_norm)} there`,
    bytes(sae.memory),
    sae.steerable ? null : "reads only: it cannot steer",
  ].filter((fact): fact is string => typeof fact === "string");
