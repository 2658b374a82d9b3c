/** Getting a model: from the shelf of those with public SAEs, by a search, or by its Hugging Face id; what it
brings is told first. */
import { Anchor, Button, Combobox, Group, Stack, Text, TextInput, Title, useCombobox } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Failed, Loading } from "@/components/states";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { bytes, count } from "@/lib/numbers";
import { client, jobs, shelf } from "@/lib/queries";
import { preview } from "./queries";
import { Found } from "./search";

const MOST = 40;

export function GetModel() {
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState<string | null>(null);
  const [words, setWords] = useState<string | null>(null);
  const known = useQuery(shelf).data ?? [];
  const combobox = useCombobox();
  const typed = text.trim();
  const fitting = known.filter(({ id }) => id.toLowerCase().includes(typed.toLowerCase())).slice(0, MOST);
  const choose = (id: string) => {
    setText(id);
    setChosen(id);
    setWords(null);
    combobox.closeDropdown();
  };
  return (
    <Stack gap="sm" component="section" aria-labelledby="get-model">
      <Title order={2} size="h4" id="get-model">
        Get a model
      </Title>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (typed) choose(typed);
        }}
      >
        <Group align="end" gap="xs">
          <Combobox store={combobox} onOptionSubmit={choose}>
            <Combobox.Target>
              <TextInput
                flex={1}
                miw={220}
                label="Hugging Face id"
                description="The list has models with public SAEs; any other id works too, and words to search for"
                placeholder="owner/name"
                value={text}
                onChange={(event) => {
                  setText(event.currentTarget.value);
                  combobox.openDropdown();
                }}
                onFocus={() => combobox.openDropdown()}
                onBlur={() => combobox.closeDropdown()}
              />
            </Combobox.Target>
            <Combobox.Dropdown hidden={fitting.length === 0}>
              <Combobox.Options mah={300} style={{ overflowY: "auto" }} aria-label="Models with public SAEs">
                {fitting.map((model) => (
                  <Combobox.Option key={model.id} value={model.id}>
                    {model.id}{" "}
                    <Text span size="xs">
                      {model.parameters && `${count(model.parameters)} · `}
                      {model.saes} SAEs, {model.layers.length} layers
                    </Text>
                  </Combobox.Option>
                ))}
              </Combobox.Options>
            </Combobox.Dropdown>
          </Combobox>
          <Button type="submit" variant="default" disabled={!typed}>
            Look at it
          </Button>
          <Button
            variant="default"
            disabled={!typed}
            onClick={() => {
              setWords(typed);
              setChosen(null);
              combobox.closeDropdown();
            }}
          >
            Search Hugging Face
          </Button>
        </Group>
      </form>
      {words && <Found words={words} choose={choose} />}
      {chosen && <Offer id={chosen} done={() => setChosen(null)} />}
    </Stack>
  );
}

function Offer({ id, done }: { id: string; done: () => void }) {
  const { data, error, refetch } = useQuery(preview(id));
  const fetch = useMutation({
    mutationFn: () => told(api.POST("/api/models", { body: { id, revision: "main" } })),
    onSuccess: () => {
      said(`${id} is being fetched.`);
      void client.invalidateQueries({ queryKey: jobs.queryKey });
      done();
    },
    onError: failed,
  });
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading rows={2} label={`Looking at ${id}`} />;
  const reason = hindrance(data);
  return (
    <Stack gap="xs" role="status">
      <Text>
        <strong>{data.name}</strong>: {facts(data).join(" · ")}
      </Text>
      {reason && <Text>{reason}</Text>}
      <Group>
        <Button onClick={() => fetch.mutate()} disabled={reason !== null} loading={fetch.isPending}>
          {data.to_download > 0 ? `Fetch ${bytes(data.to_download)}` : "Add it: all of it is here"}
        </Button>
        <Anchor href={data.link} target="_blank" rel="noreferrer">
          Its page on Hugging Face
        </Anchor>
      </Group>
    </Stack>
  );
}

const facts = (data: Schemas["DownloadPreview"]): string[] =>
  [
    data.architecture,
    data.parameters !== null && `${count(data.parameters)} parameters`,
    data.dtype,
    data.quantization,
    `licence ${data.licence ?? "not told"}`,
    `${bytes(data.size)} in ${data.files.length} files`,
    data.skipped > 0 && `${bytes(data.skipped)} are left there`,
    `${data.known_saes} known SAEs`,
    `${bytes(data.disk_free)} free on disk`,
  ].filter((fact): fact is string => typeof fact === "string");

/** Why it cannot be fetched now, with the way out. */
function hindrance(data: Schemas["DownloadPreview"]): string | null {
  if (data.gated && !data.has_access)
    return "Its licence has to be accepted on its page first, and HF_TOKEN be set to a token of that account.";
  if (data.needs_remote_code) return "It needs code from its repository, which is never run here.";
  if (data.to_download > data.disk_free - data.disk_reserve) return "The disk has not enough room for it.";
  return null;
}
