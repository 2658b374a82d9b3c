/** Another name for a profile. */
import { Button, Group, Stack, TextInput } from "@mantine/core";
import { useState } from "react";
import { asFailure } from "@/lib/failure";
import { useRename } from "./changing";

export function RenameForm({ name, done }: { name: string; done: () => void }) {
  const [next, setNext] = useState(name);
  const rename = useRename(name);
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        rename.mutate(next.trim(), { onSuccess: done });
      }}
    >
      <Stack>
        <TextInput
          label="Name"
          description="Chat clients that ask for the old one will not find it any more."
          required
          maxLength={128}
          data-autofocus
          value={next}
          onChange={(event) => setNext(event.currentTarget.value)}
          error={rename.error && asFailure(rename.error).message}
        />
        <Group>
          <Button type="submit" loading={rename.isPending} disabled={!next.trim() || next.trim() === name}>
            Rename
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
