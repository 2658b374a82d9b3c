/** A new profile: the knobs as they are now, under a name. */
import { Button, Group, Modal, Stack, Text, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { said } from "@/components/toast";
import { api, told } from "@/lib/api";
import { asFailure } from "@/lib/failure";
import { steering } from "@/lib/queries";
import { outdated } from "./changing";

export function New() {
  const [isOpen, { open, close }] = useDisclosure(false);
  const { data } = useQuery(steering);
  const [name, setName] = useState("");
  const save = useMutation({
    mutationFn: () => told(api.POST("/api/profiles/save", { body: { name: name.trim() } })),
    onSuccess: ({ model_id }) => {
      said(model_id ? `Saved. Chat clients find it as ${model_id}.` : "Saved.");
      outdated();
      setName("");
      close();
    },
  });
  return (
    <>
      <Button
        size="xs"
        onClick={open}
        disabled={!data?.steering}
        title={data?.steering ? undefined : "No knob is turned"}
      >
        Save the knobs
      </Button>
      <Modal opened={isOpen} onClose={close} title="Save the knobs as a profile">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            save.mutate();
          }}
        >
          <Stack>
            <TextInput
              label="Name"
              required
              maxLength={128}
              data-autofocus
              value={name}
              onChange={(event) => setName(event.currentTarget.value)}
              error={save.error && asFailure(save.error).message}
            />
            <Text size="sm">It keeps the model, the SAEs and the knobs that are heard now.</Text>
            <Group>
              <Button type="submit" loading={save.isPending} disabled={!name.trim()}>
                Save
              </Button>
            </Group>
          </Stack>
        </form>
      </Modal>
    </>
  );
}
