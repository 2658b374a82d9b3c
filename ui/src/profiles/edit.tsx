/** Changing what a profile says: words, prompts, and each feature's strength. */
import { Button, Group, Stack, TagsInput, Text, Textarea } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Failed, Loading } from "@/components/states";
import { said } from "@/components/toast";
import type { Schemas } from "@/lib/api";
import { profile } from "@/lib/queries";
import { usePut } from "./changing";
import { FeatureRows } from "./feature-rows";

type Profile = Schemas["Profile"];

export function Edit({ name, done }: { name: string; done: () => void }) {
  const { data, error, refetch } = useQuery({ ...profile(name), staleTime: 0 });
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  return <Form name={name} was={data.profile as Profile} done={done} />;
}

function Form({ name, was, done }: { name: string; was: Profile; done: () => void }) {
  const [draft, setDraft] = useState(was);
  const put = usePut(name);
  const change = (what: Partial<Profile>) => setDraft({ ...draft, ...what });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        put.mutate(draft, {
          onSuccess: () => {
            said(`${name} is saved.`);
            done();
          },
        });
      }}
    >
      <Stack>
        <Textarea
          label="Description"
          autosize
          value={draft.description ?? ""}
          onChange={(event) => change({ description: event.currentTarget.value })}
        />
        <TagsInput label="Tags" value={draft.tags ?? []} onChange={(tags) => change({ tags })} />
        <Textarea
          label="Example prompts"
          description="One a line"
          autosize
          minRows={2}
          value={(draft.example_prompts ?? []).join("\n")}
          onChange={(event) => change({ example_prompts: event.currentTarget.value.split("\n") })}
          onBlur={() => change({ example_prompts: draft.example_prompts?.filter((prompt) => prompt.trim()) })}
        />
        <FeatureRows
          features={draft.features ?? []}
          saes={(draft.saes ?? []).flatMap((sae) => sae.name ?? [])}
          change={(features) => change({ features })}
        />
        {put.error && <Failed thrown={put.error} />}
        <Group>
          <Button type="submit" loading={put.isPending} disabled={draft === was}>
            Save
          </Button>
          <Text size="sm">Where it is active, the next answer is steered by what is saved.</Text>
        </Group>
      </Stack>
    </form>
  );
}
