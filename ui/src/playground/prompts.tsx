/** Questions at which a profile shows what it does: one click writes one. */
import { Button, Group, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import type { Schemas } from "@/lib/api";
import { profile as saved } from "@/lib/queries";

const MOST = 4;
const LONGEST = 60;

interface Props {
  /** null: no profile has been saved of what steers. */
  profile: string | null;
  choose: (prompt: string) => void;
}

export function Prompts({ profile, choose }: Props) {
  const { data } = useQuery({ ...saved(profile ?? ""), enabled: profile !== null });
  const prompts = (profile !== null && (data?.profile as Schemas["Profile"] | undefined)?.example_prompts) || [];
  if (prompts.length === 0) return null;
  return (
    <Group gap="xs" role="group" aria-label="Prompts to try">
      <Text size="sm">Try</Text>
      {prompts.slice(0, MOST).map((prompt) => (
        <Button key={prompt} size="compact-xs" variant="default" title={prompt} onClick={() => choose(prompt)}>
          {prompt.length > LONGEST ? `${prompt.slice(0, LONGEST)}…` : prompt}
        </Button>
      ))}
    </Group>
  );
}
