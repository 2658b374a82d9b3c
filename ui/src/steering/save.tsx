/** Saving the knobs as a profile: what any chat client then finds in its model menu. */
import { Button, Group, Modal, Stack, Text, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { said } from "@/components/toast";
import { api, told } from "@/lib/api";
import { asFailure } from "@/lib/failure";
import { client } from "@/lib/queries";

interface Props {
  suggested: string;
  isOpen: boolean;
  close: () => void;
}

export const SaveAs = ({ isOpen, close, suggested }: Props) => (
  <Modal opened={isOpen} onClose={close} title="Save as a profile">
    <Form suggested={suggested} close={close} />
  </Modal>
);

function Form({ suggested, close }: Omit<Props, "isOpen">) {
  const [name, setName] = useState(suggested);
  const [description, setDescription] = useState("");
  const save = useMutation({
    mutationFn: (overwrite: boolean) =>
      told(
        api.POST("/api/profiles/save", {
          body: { name: name.trim(), description: description.trim() || undefined, overwrite },
        }),
      ),
    onSuccess: ({ model_id }) => {
      said(model_id ? `Saved. Chat clients find it as ${model_id}.` : "Saved.");
      void client.invalidateQueries({ queryKey: ["profiles"] });
      void client.invalidateQueries({ queryKey: ["steering"] });
      close();
    },
  });
  const failure = save.error && asFailure(save.error);
  const isTaken = failure?.code === "profile_name_taken";
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate(false);
      }}
    >
      <Stack gap="sm">
        <TextInput
          label="Name"
          required
          maxLength={128}
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          error={failure?.message}
          data-autofocus
        />
        <TextInput
          label="Description"
          value={description}
          onChange={(event) => setDescription(event.currentTarget.value)}
        />
        <Text size="sm">It keeps the model, the SAEs and the knobs that are heard now.</Text>
        <Group>
          <Button type="submit" loading={save.isPending} disabled={!name.trim()}>
            Save
          </Button>
          {isTaken && (
            <Button color="red.8" onClick={() => save.mutate(true)}>
              Overwrite {name.trim()}
            </Button>
          )}
        </Group>
      </Stack>
    </form>
  );
}
