/** What each entry of a document becomes, which SAEs are meant, and doing it. */
import { Badge, Button, Checkbox, Group, List, Select, Stack, Text } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Failed } from "@/components/states";
import { said } from "@/components/toast";
import type { Schemas } from "@/lib/api";
import { count } from "@/lib/numbers";
import { saes } from "@/lib/queries";
import { sent } from "@/lib/send";
import { outdated } from "./changing";

interface Props {
  preview: Schemas["ImportPreview"];
  document: Blob;
  /** Asks again, now that it is said which SAE of ours is meant: `<foreign id>=<our id>`. */
  resolve: (saes: string[]) => void;
  done: () => void;
}

const CONFLICTS = [
  { value: "refuse", label: "refuse" },
  { value: "rename", label: "give the new one another name" },
  { value: "replace", label: "replace the old one" },
  { value: "skip", label: "leave the old one" },
];

export function Preview({ preview, document, resolve, done }: Props) {
  const [left, leave] = useState<readonly string[]>([]);
  const [conflict, setConflict] = useState("refuse");
  const [meant, mean] = useState<Record<string, string>>({});
  const library = useQuery(saes).data ?? [];
  const foreign = [
    ...new Set(
      preview.entries
        .flatMap(({ unresolved }) => unresolved)
        .filter(isSae)
        .map(({ id }) => id),
    ),
  ];
  const pairs = Object.entries(meant).map(([theirs, ours]) => `${theirs}=${ours}`);
  const chosen = preview.entries.filter(({ path, becomes }) => becomes !== "nothing" && !left.includes(path));
  const take = useMutation({
    mutationFn: () => {
      const only = left.length ? chosen.map(({ path }) => ["only", path]) : [];
      const query = new URLSearchParams([...pairs.map((pair) => ["sae", pair]), ...only, ["on_conflict", conflict]]);
      return sent<Schemas["ImportResponse"]>(`/api/profiles/import?${query}`, document);
    },
    onSuccess: ({ entries }) => {
      said(entries.map(({ name, did }) => `${name}: ${did}`).join("; ") || "Nothing was in it.");
      outdated();
      done();
    },
  });
  return (
    <Stack gap="sm" role="region" aria-label="What it becomes">
      <Text size="sm">
        It is: <strong>{preview.format}</strong>
      </Text>
      <Notes notes={preview.notes} />
      {preview.entries.map((entry) => (
        <Entry
          key={entry.path}
          entry={entry}
          isChosen={!left.includes(entry.path)}
          choose={(isChosen) => leave(isChosen ? left.filter((path) => path !== entry.path) : [...left, entry.path])}
        />
      ))}
      {foreign.map((id) => (
        <Select
          key={id}
          label={`Which SAE is ${id}?`}
          description="Remembered for the next file"
          data={library.map(({ id }) => id)}
          value={meant[id] ?? null}
          onChange={(ours) => {
            if (!ours) return;
            mean({ ...meant, [id]: ours });
            resolve([...pairs, `${id}=${ours}`]);
          }}
          searchable
          maw={420}
        />
      ))}
      <Group align="end">
        <Select
          size="xs"
          label="Where a name is taken"
          data={CONFLICTS}
          value={conflict}
          allowDeselect={false}
          onChange={(value) => value && setConflict(value)}
          w={240}
        />
        <Button size="xs" disabled={chosen.length === 0} loading={take.isPending} onClick={() => take.mutate()}>
          Import {chosen.length}
        </Button>
      </Group>
      {take.error && <Failed thrown={take.error} />}
    </Stack>
  );
}

const isSae = ({ kind }: Schemas["UnresolvedReference"]) => kind === "sae";

interface EntryProps {
  entry: Schemas["PreviewEntry"];
  isChosen: boolean;
  choose: (isChosen: boolean) => void;
}

const Entry = ({ entry, isChosen, choose }: EntryProps) => (
  <Stack gap={2}>
    <Group gap="xs">
      <Checkbox
        label={entry.name || entry.path}
        checked={isChosen && entry.becomes !== "nothing"}
        disabled={entry.becomes === "nothing"}
        onChange={(event) => choose(event.currentTarget.checked)}
      />
      <Badge variant="default">{entry.becomes === "labels" ? `${count(entry.labels)} labels` : entry.becomes}</Badge>
      <Text size="xs" ff="monospace">
        {entry.path}
      </Text>
    </Group>
    {entry.misfit && <Text size="sm">Does not fit what runs: {entry.misfit}</Text>}
    <Notes notes={[...entry.unresolved.map(({ path, reason }) => `${path}: ${reason}`), ...entry.notes]} />
  </Stack>
);

const Notes = ({ notes }: { notes: readonly string[] }) =>
  notes.length > 0 && (
    <List size="sm">
      {notes.map((note) => (
        <List.Item key={note}>{note}</List.Item>
      ))}
    </List>
  );
