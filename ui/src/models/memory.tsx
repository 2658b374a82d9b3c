/** Whether a model fits: its parts, against what is free and what would be freed. */
import { Group, Progress, Stack, Text } from "@mantine/core";
import type { Schemas } from "@/lib/api";
import { bytes } from "@/lib/numbers";

type Estimate = Schemas["Estimate"];

const PARTS: readonly [keyof Estimate & string, string, string][] = [
  ["weights", "weights", "indigo.8"],
  ["kv_cache", "keys and values", "teal.8"],
  ["saes", "SAEs", "grape.8"],
  ["activations", "activations", "orange.8"],
  ["overhead", "overhead", "gray.7"],
];

const VERDICT = { fits: "It fits.", does_not_fit: "It does not fit.", unknown: "Its files do not say enough to tell." };

export function Memory({ estimate }: { estimate: Estimate }) {
  const room = estimate.free === null ? null : estimate.free + estimate.evictable;
  const whole = Math.max(room ?? 0, estimate.total ?? 0) || 1;
  const parts = PARTS.map(([name, label, color]) => ({ label, color, size: Number(estimate[name] ?? 0) }));
  return (
    <Stack gap={6} role="status" aria-label="Memory that it would take">
      <Text size="sm">
        <strong>{VERDICT[estimate.verdict]}</strong> {estimate.total !== null && `It takes ${bytes(estimate.total)}`}
        {room !== null && ` of ${bytes(room)} on ${estimate.device}`}
        {estimate.evictable > 0 && ` (${bytes(estimate.evictable)} of it are freed by what goes first)`}.{" "}
        {estimate.advice}
      </Text>
      <Progress.Root size="lg">
        {parts.map(({ label, color, size }) => (
          <Progress.Section
            key={label}
            value={(100 * size) / whole}
            color={color}
            aria-label={`${label}: ${bytes(size)}`}
          />
        ))}
      </Progress.Root>
      <Group gap="sm">
        {parts
          .filter(({ size }) => size > 0)
          .map(({ label, size }) => (
            <Text key={label} size="xs">
              {label} {bytes(size)}
            </Text>
          ))}
      </Group>
    </Stack>
  );
}
