/** The conversation so far, the columns side by side, or below each other where there is no room. */
import { ActionIcon, Card, Group, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { IconChevronLeft, IconChevronRight, IconGitBranch, IconPencil, IconRefresh } from "@tabler/icons-react";
import { AnswerText } from "./answer";
import { besides, type Turn } from "./conversation";
import { diff, firstDifference } from "./diff";

export const BASE = "Base model";
export const STEERED = "Steered";
export const PROMPTED = "System prompt instead";

interface Props {
  turns: readonly Turn[];
  /** Those of other branches too. */
  all: readonly Turn[];
  columns: readonly string[];
  showsDifference: boolean;
  isWriting: boolean;
  retry: (turn: Turn) => void;
  edit: (turn: Turn) => void;
  branch: (turn: Turn) => void;
  show: (turn: number) => void;
}

export const Turns = ({ turns, ...rest }: Props) => (
  <Stack gap="lg" aria-live="polite" aria-busy={rest.isWriting}>
    {turns.map((turn) => (
      <OneTurn key={turn.id} turn={turn} {...rest} />
    ))}
  </Stack>
);

function OneTurn({
  turn,
  all,
  columns,
  showsDifference,
  isWriting,
  retry,
  edit,
  branch,
  show,
}: Omit<Props, "turns"> & { turn: Turn }) {
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
          <Branches turn={turn} all={all} isWriting={isWriting} show={show} />
          <Act label="Ask again" isOff={isWriting} act={() => retry(turn)} icon={IconRefresh} />
          <Act label="Edit the question" isOff={isWriting} act={() => edit(turn)} icon={IconPencil} />
          <Act label="Go on from here anew" isOff={isWriting} act={() => branch(turn)} icon={IconGitBranch} />
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

interface BranchesProps {
  turn: Turn;
  all: readonly Turn[];
  isWriting: boolean;
  show: (turn: number) => void;
}

/** What else was asked at this place, to leaf through. */
function Branches({ turn, all, isWriting, show }: BranchesProps) {
  const there = besides(all, turn);
  if (there.length < 2) return null;
  const at = there.findIndex(({ id }) => id === turn.id);
  const [before, after] = [there[at - 1], there[at + 1]];
  return (
    <Group gap={2} wrap="nowrap" role="group" aria-label="Branches">
      <Act
        label="The branch before"
        isOff={isWriting || !before}
        act={() => before && show(before.id)}
        icon={IconChevronLeft}
      />
      <Text size="xs" aria-live="polite">
        {at + 1} of {there.length}
      </Text>
      <Act
        label="The branch after"
        isOff={isWriting || !after}
        act={() => after && show(after.id)}
        icon={IconChevronRight}
      />
    </Group>
  );
}

interface ActProps {
  label: string;
  isOff: boolean;
  act: () => void;
  icon: typeof IconPencil;
}

const Act = ({ label, isOff, act, icon: Icon }: ActProps) => (
  <ActionIcon variant="default" aria-label={label} title={label} disabled={isOff} onClick={act}>
    <Icon size={16} aria-hidden />
  </ActionIcon>
);
