/** One prompt at many strengths: the answers side by side, how coherent they are, and which strength is advised. */
import { Button, Card, Group, SimpleGrid, Stack, Text, Textarea, TextInput } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { Empty, Failed } from "@/components/states";
import type { Schemas } from "@/lib/api";
import { short } from "@/lib/numbers";
import { steering } from "@/lib/queries";
import { streamed } from "@/lib/stream";
import { Calibrated } from "./calibrate";
import { Coherence } from "./coherence";
import { scalesOf } from "./scales";

type Told = Partial<Pick<Schemas["SweepResult"], "summary">> & Partial<Schemas["MeasuredAnswer"]>;

export function SweepPanel() {
  const { data: state } = useQuery(steering);
  const [prompt, setPrompt] = useState("Tell me about your day.");
  const [written, setWritten] = useState("0, 0.25, 0.5, 1, 1.5, 2");
  const [points, setPoints] = useState<readonly Schemas["MeasuredAnswer"][]>([]);
  const [summary, setSummary] = useState<readonly Schemas["ScaleMeans"][]>([]);
  const abort = useRef<AbortController | null>(null);
  const scales = scalesOf(written);
  const asked = {
    messages: [{ role: "user" as const, content: prompt }],
    steering: state?.steering as Schemas["SteeringRequest"] | undefined,
    max_tokens: 60,
    seeds: [1],
  };
  const sweep = useMutation({
    mutationFn: async () => {
      setPoints([]);
      setSummary([]);
      abort.current = new AbortController();
      const body = { ...asked, scales, stream: true };
      for await (const told of streamed<Told>("/api/sweep", body, abort.current.signal)) {
        if (told.summary) setSummary(told.summary);
        else if (told.text !== undefined) setPoints((before) => [...before, told as Schemas["MeasuredAnswer"]]);
      }
    },
  });
  const wasStopped = sweep.error?.name === "AbortError";
  if (state && !state.steering)
    return <Empty title="No knob is turned">A sweep multiplies the knobs as they are: turn at least one.</Empty>;
  return (
    <Stack gap="sm">
      <Textarea
        label="Prompt"
        autosize
        minRows={2}
        value={prompt}
        onChange={(event) => setPrompt(event.currentTarget.value)}
      />
      <TextInput
        label="Scales"
        description="What the knobs are multiplied with; up to 20"
        value={written}
        onChange={(event) => setWritten(event.currentTarget.value)}
        error={scales === null && "Numbers, with commas between them"}
      />
      <Group>
        <Button disabled={!prompt.trim() || !scales?.length} loading={sweep.isPending} onClick={() => sweep.mutate()}>
          Sweep
        </Button>
        {sweep.isPending && (
          <Button variant="default" onClick={() => abort.current?.abort()}>
            Stop
          </Button>
        )}
        <Text size="sm" role="status">
          {sweep.isPending && `${points.length} of ${scales?.length} answers`}
          {wasStopped && "Stopped."}
        </Text>
      </Group>
      {sweep.error && !wasStopped && <Failed thrown={sweep.error} />}
      <SimpleGrid cols={{ base: 1, sm: 2, lg: 3 }}>
        {points.map((point) => (
          <Card key={`${point.scale} ${point.seed}`} withBorder component="section" aria-label={`Scale ${point.scale}`}>
            <Text fw={600} size="sm">
              × {point.scale === null ? "base" : short(point.scale)}
            </Text>
            <Text size="sm" style={{ whiteSpace: "pre-wrap", overflowWrap: "anywhere" }}>
              {point.text}
            </Text>
            <Text size="xs" mt={4}>
              {point.perplexity !== null && `perplexity ${short(point.perplexity)} · `}repetition{" "}
              {short(point.repetition)}
            </Text>
          </Card>
        ))}
      </SimpleGrid>
      {summary.length > 0 && <Coherence means={summary} />}
      {state?.steering && <Calibrated asked={asked} knobs={state.features} />}
    </Stack>
  );
}
