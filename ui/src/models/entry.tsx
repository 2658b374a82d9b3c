/** One model of the library: what it is, and what can be done with it. */
import { Badge, Button, Card, Group, Stack, Text } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { ConfirmDelete } from "@/components/confirm-delete";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { bytes, count } from "@/lib/numbers";
import { client, status } from "@/lib/queries";
import { LoadModel } from "./load";

export function ModelCard({ model, isBusy }: { model: Schemas["ModelEntry"]; isBusy: boolean }) {
  const [isLoading, setLoading] = useState(false);
  const unload = useMutation({
    mutationFn: () => told(api.POST("/api/models/unload")),
    onSuccess: (state) => client.setQueryData(status.queryKey, state),
    onError: failed,
  });
  const remove = useMutation({
    mutationFn: () => told(api.DELETE("/api/models/{id}", { params: { path: { id: model.id } } })),
    onSuccess: (freed) => {
      said(`${bytes(freed.bytes)} are free again.`);
      void client.invalidateQueries({ queryKey: ["models"] });
    },
    onError: failed,
  });
  return (
    <Card withBorder padding="sm" component="section" aria-label={model.id}>
      <Stack gap={6}>
        <Group justify="space-between">
          <Group gap="xs">
            <Text fw={600} style={{ overflowWrap: "anywhere" }}>
              {model.id}
            </Text>
            {model.is_loaded && <Badge variant="filled">loaded</Badge>}
            {model.state !== "whole" && <Badge variant="default">{model.state}</Badge>}
          </Group>
          <Group gap="xs">
            {model.is_loaded ? (
              <Button size="xs" variant="default" loading={unload.isPending} onClick={() => unload.mutate()}>
                Unload
              </Button>
            ) : (
              <Button
                size="xs"
                disabled={model.state !== "whole" || isBusy}
                onClick={() => setLoading(true)}
                aria-label={`Load ${model.id}`}
              >
                Load
              </Button>
            )}
            {model.origin !== "builtin" && (
              <ConfirmDelete
                name={model.id}
                what={`${bytes(model.size - model.shared)} of files go.`}
                remove={() => remove.mutate()}
                isDisabled={model.is_loaded}
              />
            )}
          </Group>
        </Group>
        <Text size="sm">{facts(model).join(" · ")}</Text>
        {model.problem && <Text size="sm">{model.problem}</Text>}
      </Stack>
      {isLoading && <LoadModel id={model.id} close={() => setLoading(false)} />}
    </Card>
  );
}

const facts = (model: Schemas["ModelEntry"]): string[] =>
  [
    model.architecture,
    model.parameters !== null && `${count(model.parameters)} parameters`,
    model.dtype,
    model.quantization,
    model.context_length !== null && `context ${count(model.context_length)}`,
    bytes(model.size),
    model.shared > 0 && `${bytes(model.shared)} shared`,
    model.generates ? null : "only embeds",
  ].filter((fact): fact is string => typeof fact === "string");
