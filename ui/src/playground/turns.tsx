/** The conversation so far, the columns side by side, or below each other where there is no room. */
import { ActionIcon, Card, Group, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { IconPencil, IconRefresh } from "@tabler/icons-react";
import { AnswerText } from "./answer";
import type { Turn } from "./conversation";
import { diff, firstDifference } from "./diff";

export const BASE = "Base model";
export const STEERED = "Steered";
export const PROMPTED = "System prompt instead";

interface Props {
  turns: readonly Turn[];
  columns: readonly string[];
  showsDifference: boolean;
  isWriting: boolean;
  retry: (place: number) => void;
  edit: (place: number) => void;
}

export const Turns = ({ turns, ...rest }: Props) => (
  <Stack gap="lg" aria-live="polite" aria-busy={rest.isWriting}>
    {turns.map((turn, place) => (
      <OneTurn key={place} turn={turn} place={place} {...rest} />
    ))}
  </Stack>
);

function OneTurn({
  turn,
  place,
  columns,
  showsDifference,
  isWriting,
  retry,
  edit,
}: Omit<Props, "turns"> & { turn: Turn; place: number }) {
  const [base, steered] = [turn.answers[BASE], turn.answers[STEERED]];
  const both = base?.text && steered?.text ? { base: base.text, steered: steered.text } : null;
  const [left, right] = both && showsDifference ? diff(both.base, both.steered) : [];
  const parting = both && firstDifference(both.base, both.steered);
  return (
    <Stack gap="xs">
      <Group justify="space-between" wrap="nowrap">
        <Text fw={600} style={{ overflowWrap: "anywhere", whiteSpace: "pre-wrap" }}>
          {turn.question}
        </Text>
        <Group gap={4} wrap="nowrap">
          <ActionIcon
            variant="default"
            aria-label="Ask again"
            title="Ask again"
            disabled={isWriting}
            onClick={() => retry(place)}
          >
            <IconRefresh size={16} aria-hidden />
          </ActionIcon>
          <ActionIcon
            variant="default"
            aria-label="Edit the question"
            title="Edit the question"
            disabled={isWriting}
            onClick={() => edit(place)}
          >
            <IconPencil size={16} aria-hidden />
          </ActionIcon>
        </Group>
      </Group>
      <SimpleGrid cols={{ base: 1, sm: columns.length }} spacing="sm">
        {columns
          .filter((name) => turn.answers[name])
          .map((name) => (
            <Card key={name} withBorder padding="sm" component="section" aria-label={name} data-column={name}>
              <Title order={2} size="h6" c={name === STEERED ? "var(--mantine-primary-color-filled)" : undefined}>
                {name}
              </Title>
              <AnswerText
                answer={turn.answers[name]!}
                isSteered={name === STEERED}
                pieces={name === BASE ? left : name === STEERED ? right : undefined}
              />
            </Card>
          ))}
      </SimpleGrid>
      {parting && <Text size="xs">The two part at word {parting}.</Text>}
    </Stack>
  );
}
