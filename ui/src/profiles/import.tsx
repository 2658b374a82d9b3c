/** Taking a document in: dropped, chosen or pasted; what each of its entries becomes is shown before anything changes. */
import { Button, Card, FileButton, Group, Stack, Text, Textarea, Title } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { Failed } from "@/components/states";
import type { Schemas } from "@/lib/api";
import { sent } from "@/lib/send";
import { Preview } from "./preview";

export function Import({ done }: { done: () => void }) {
  const [text, setText] = useState("");
  const [isOver, setOver] = useState(false);
  const [document, setDocument] = useState<Blob | null>(null);
  const [told, tell] = useState<Schemas["ImportPreview"] | null>(null);
  const preview = useMutation({
    mutationFn: ({ document, saes }: { document: Blob; saes: string[] }) =>
      sent<Schemas["ImportPreview"]>(`/api/profiles/import/preview?${asQuery(saes)}`, document),
    onSuccess: tell,
  });
  const look = (document: Blob) => {
    setDocument(document);
    tell(null);
    preview.mutate({ document, saes: [] });
  };
  return (
    <Card
      withBorder
      component="section"
      aria-label="Import"
      bd={isOver ? "2px dashed var(--mantine-primary-color-filled)" : undefined}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        const file = event.dataTransfer.files[0];
        if (file) look(file);
      }}
    >
      <Stack gap="sm">
        <Title order={2} size="h4">
          Import
        </Title>
        <Text size="sm">
          Drop a file here: profiles of miLLM, miStudio’s experiments, results and label archives, Neuronpedia’s
          requests and lists, GGUF control vectors, lm-eval’s CSV.
        </Text>
        <Group align="end">
          <FileButton onChange={(file) => file && look(file)}>
            {(props) => (
              <Button {...props} size="xs" variant="default">
                Choose a file
              </Button>
            )}
          </FileButton>
        </Group>
        <Textarea
          label="Or paste it"
          description="A document, or the address of a feature or a list at Neuronpedia"
          autosize
          minRows={2}
          maxRows={10}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
        />
        <Group>
          <Button
            size="xs"
            disabled={!text.trim()}
            loading={preview.isPending}
            onClick={() => look(new Blob([text.trim()]))}
          >
            See what it becomes
          </Button>
          <Button size="xs" variant="default" onClick={done}>
            Close
          </Button>
        </Group>
        {preview.error && <Failed thrown={preview.error} />}
        {told && document && (
          <Preview
            preview={told}
            document={document}
            resolve={(saes) => preview.mutate({ document, saes })}
            done={done}
          />
        )}
      </Stack>
    </Card>
  );
}

const asQuery = (saes: readonly string[]) => new URLSearchParams(saes.map((sae) => ["sae", sae]));
