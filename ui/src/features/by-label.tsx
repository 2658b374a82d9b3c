/** The labels of an SAE, all of them: a list that draws only what is on the screen. */
import { Anchor, Button, FileButton, Group, NumberInput, Stack, Text, TextInput } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useRef, useState } from "react";
import { Empty, Failed, Loading } from "@/components/states";
import { failed, said } from "@/components/toast";
import type { Schemas } from "@/lib/api";
import { download } from "@/lib/download";
import { labels, type Label } from "@/lib/labels";
import { count, percent, short } from "@/lib/numbers";
import { client } from "@/lib/queries";
import { sent } from "@/lib/send";
import { matching } from "./matching";

export function ByLabel({ sae }: { sae: Schemas["SaeFacts"] }) {
  const [words, setWords] = useState("");
  const { data, error, refetch } = useQuery(labels(sae.sae));
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  const found = matching([...data.values()], words);
  return (
    <Stack gap="sm">
      <Group align="end">
        <TextInput
          label="Words of the label"
          value={words}
          onChange={(event) => setWords(event.currentTarget.value)}
          flex={1}
          maw={420}
        />
        <Open sae={sae} />
        <Files sae={sae.sae} />
      </Group>
      <Text size="sm" role="status">
        {count(found.length)} of {count(data.size)} labels; the SAE has {count(sae.features)} features
      </Text>
      {found.length === 0 ? (
        <Empty title={data.size ? "No label has these words" : "This SAE has no labels yet"}>
          Import a file of labels, or find features by text and name them.
        </Empty>
      ) : (
        <Rows sae={sae.sae} found={found} />
      )}
    </Stack>
  );
}

function Open({ sae }: { sae: Schemas["SaeFacts"] }) {
  const [index, setIndex] = useState<string | number>("");
  const go = useNavigate();
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (typeof index === "number") void go({ to: "/features", search: { sae: sae.sae, index } });
      }}
    >
      <Group align="end" gap="xs">
        <NumberInput
          label="Index"
          w={110}
          hideControls
          allowDecimal={false}
          min={0}
          max={sae.features - 1}
          clampBehavior="strict"
          value={index}
          onChange={setIndex}
        />
        <Button type="submit" variant="default" disabled={typeof index !== "number"}>
          Open
        </Button>
      </Group>
    </form>
  );
}

function Files({ sae }: { sae: string }) {
  const query = new URLSearchParams({ sae });
  const take = useMutation({
    mutationFn: (file: File) => sent<Schemas["PutLabels"]>(`/api/features/labels?${query}`, file),
    onSuccess: (put) => {
      said(`${put.labels} labels were taken in.`);
      for (const name of ["labels", "feature", "found"]) void client.invalidateQueries({ queryKey: [name] });
    },
    onError: failed,
  });
  return (
    <Group gap="xs">
      <FileButton onChange={(file) => file && take.mutate(file)}>
        {(props) => (
          <Button {...props} variant="default" loading={take.isPending}>
            Import labels
          </Button>
        )}
      </FileButton>
      <Button
        variant="default"
        onClick={() => void download(`/api/features/labels?${query}`, `labels.jsonl`).catch(failed)}
      >
        Export labels
      </Button>
    </Group>
  );
}

const ROW = 34;

function Rows({ sae, found }: { sae: string; found: readonly Label[] }) {
  const box = useRef<HTMLDivElement>(null);
  // eslint-disable-next-line react-hooks/incompatible-library -- it tells by itself when it has changed
  const rows = useVirtualizer({
    count: found.length,
    getScrollElement: () => box.current,
    estimateSize: () => ROW,
    overscan: 12,
  });
  return (
    <div ref={box} tabIndex={0} role="region" aria-label="Labels" style={{ height: "60vh", overflowY: "auto" }}>
      <div role="list" style={{ height: rows.getTotalSize(), position: "relative" }}>
        {rows.getVirtualItems().map(({ index: at, start }) => {
          const { index, label, max_act, density } = found[at]!;
          return (
            <div
              key={index}
              role="listitem"
              aria-setsize={found.length}
              aria-posinset={at + 1}
              style={{ position: "absolute", top: start, height: ROW, width: "100%" }}
            >
              <Group gap="xs" wrap="nowrap" justify="space-between">
                <Anchor
                  truncate
                  renderRoot={(props) => <Link to="/features" search={{ sae, index }} {...props} />}
                  size="sm"
                >
                  {index} · {label}
                </Anchor>
                <Text size="xs" style={{ flexShrink: 0 }}>
                  {[max_act !== null && `max ${short(max_act)}`, density !== null && `at ${percent(density)}`]
                    .filter(Boolean)
                    .join(" · ")}
                </Text>
              </Group>
            </div>
          );
        })}
      </div>
    </div>
  );
}
