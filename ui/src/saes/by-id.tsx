/** Any SAE on Hugging Face, by its repository and the path inside: what it brings is told first. */
import { Button, Group, Stack, Text, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { Failed } from "@/components/states";
import { said } from "@/components/toast";
import { api, told } from "@/lib/api";
import { bytes } from "@/lib/numbers";
import { client, jobs } from "@/lib/queries";

export function ById() {
  const [id, setId] = useState("");
  const body = { id: id.trim(), revision: "main" };
  const look = useMutation({ mutationFn: () => told(api.POST("/api/saes/preview", { body })) });
  const fetch = useMutation({
    mutationFn: () => told(api.POST("/api/saes", { body })),
    onSuccess: () => {
      said(`${body.id} is being fetched.`);
      look.reset();
      void client.invalidateQueries({ queryKey: jobs.queryKey });
    },
  });
  const thrown = look.error ?? fetch.error;
  return (
    <Stack gap="xs">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          look.mutate();
        }}
      >
        <Group align="end" gap="xs">
          <TextInput
            flex={1}
            miw={220}
            label="Any other, by its Hugging Face id"
            placeholder="owner/name/path/inside"
            value={id}
            onChange={(event) => {
              setId(event.currentTarget.value);
              look.reset();
            }}
          />
          <Button type="submit" variant="default" disabled={!body.id} loading={look.isPending}>
            Look at it
          </Button>
        </Group>
      </form>
      {thrown && <Failed thrown={thrown} />}
      {look.data && (
        <Group role="status">
          <Text size="sm">
            {look.data.name}: {bytes(look.data.size)} in {look.data.files.length} files, licence{" "}
            {look.data.licence ?? "not told"}
          </Text>
          <Button size="xs" loading={fetch.isPending} onClick={() => fetch.mutate()}>
            Fetch {bytes(look.data.to_download)}
          </Button>
        </Group>
      )}
    </Stack>
  );
}
