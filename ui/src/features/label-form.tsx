/** What a feature is called: said by the SAE's makers or by the user, whose word wins and can be taken back. */
import { Button, Group, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { asFailure } from "@/lib/failure";
import { client } from "@/lib/queries";

export function LabelForm({ card }: { card: Schemas["FeatureCard"] }) {
  const [draft, setDraft] = useState<string | null>(null);
  const where = { params: { path: { index: card.index }, query: { sae: card.sae } } };
  const changed = () => {
    setDraft(null);
    for (const name of ["labels", "feature", "found", "steering"]) void client.invalidateQueries({ queryKey: [name] });
  };
  const save = useMutation({
    mutationFn: (label: string) => told(api.PUT("/api/features/{index}/label", { ...where, body: { label } })),
    onSuccess: changed,
  });
  const forget = useMutation({
    mutationFn: () => told(api.DELETE("/api/features/{index}/label", where)),
    onSuccess: () => {
      said("The label is taken back.");
      changed();
    },
    onError: failed,
  });
  const text = draft ?? card.label ?? "";
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate(text.trim());
      }}
    >
      <Group align="end">
        <TextInput
          label="Label"
          placeholder="What makes it fire?"
          value={text}
          onChange={(event) => setDraft(event.currentTarget.value)}
          error={save.error && asFailure(save.error).message}
          flex={1}
          maw={520}
        />
        <Button type="submit" loading={save.isPending} disabled={!text.trim() || text === card.label}>
          Save
        </Button>
        {card.label !== null && (
          <Button variant="default" loading={forget.isPending} onClick={() => forget.mutate()}>
            Take back
          </Button>
        )}
      </Group>
    </form>
  );
}
