/** One SAE of the library: whether it fits, attaching it, and where to, if its files do not say. */
import { Anchor, Badge, Button, Card, Group, Stack, Text, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { ConfirmDelete } from "@/components/confirm-delete";
import { Failed } from "@/components/states";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { bytes, count } from "@/lib/numbers";
import { client } from "@/lib/queries";
import { useAttach } from "./attaching";
import { misfit } from "./verdict";

interface Props {
  sae: Schemas["SaeEntry"];
  model: Schemas["ModelFacts"] | null;
}

export function SaeCard({ sae, model }: Props) {
  const [hookPoint, setHookPoint] = useState("");
  const attach = useAttach();
  const remove = useMutation({
    mutationFn: () => told(api.DELETE("/api/saes/{id}", { params: { path: { id: sae.id } } })),
    onSuccess: (freed) => {
      said(`${bytes(freed.bytes)} are free again.`);
      void client.invalidateQueries({ queryKey: ["saes"] });
    },
    onError: failed,
  });
  const reason = misfit(sae, model);
  const where = sae.hook_point ? {} : { hook_point: hookPoint.trim() };
  return (
    <Card withBorder padding="sm" component="section" aria-label={sae.id}>
      <Stack gap={6}>
        <Group justify="space-between">
          <Group gap="xs">
            <Text fw={600} style={{ overflowWrap: "anywhere" }}>
              {sae.id}
            </Text>
            {sae.is_attached && <Badge variant="filled">attached</Badge>}
          </Group>
          <Group gap="xs">
            <Button
              size="xs"
              disabled={reason !== null || (!sae.hook_point && !hookPoint.trim())}
              loading={attach.isPending}
              onClick={() => attach.mutate({ id: sae.id, ...where })}
              aria-label={`Attach ${sae.id}`}
            >
              Attach
            </Button>
            {sae.origin !== "builtin" && (
              <ConfirmDelete
                name={sae.id}
                what={`${bytes(sae.size)} of files go.`}
                remove={() => remove.mutate()}
                isDisabled={sae.is_attached}
              />
            )}
          </Group>
        </Group>
        <Text size="sm">{facts(sae).join(" · ")}</Text>
        {sae.neuronpedia && (
          <Anchor href={sae.neuronpedia} target="_blank" rel="noreferrer" size="sm">
            Neuronpedia
          </Anchor>
        )}
        {!sae.is_attached && reason && <Text size="sm">{reason}</Text>}
        {!sae.hook_point && !reason && (
          <TextInput
            size="xs"
            label="Hook point"
            description="Its files do not say where it belongs"
            placeholder="blocks.12.hook_resid_post"
            value={hookPoint}
            onChange={(event) => setHookPoint(event.currentTarget.value)}
          />
        )}
        {attach.error && <Failed thrown={attach.error} />}
      </Stack>
    </Card>
  );
}

const facts = (sae: Schemas["SaeEntry"]): string[] =>
  [
    sae.hook_point,
    sae.width !== null && `${count(sae.width)} features`,
    sae.architecture,
    sae.model && `trained on ${sae.model}`,
    sae.format,
    bytes(sae.size),
  ].filter((fact): fact is string => typeof fact === "string");
