/** What the steered answers are steered with: the knobs that are active on the server, or a profile for these alone. */
import { Chip, Group, Text } from "@mantine/core";
import type { Schemas } from "@/lib/api";
import type { Steered } from "./asking";

export const KNOBS = "";
/** Chosen where nothing is active: it shows at once. */
const FIRST = "yelling";

interface Props {
  profiles: readonly Schemas["ProfileEntry"][];
  chosen: string;
  choose: (name: string) => void;
}

export const SteerWith = ({ profiles, chosen, choose }: Props) => (
  <Group gap="xs" role="group" aria-label="Steer with">
    <Text size="sm">Steer with</Text>
    <Chip.Group value={chosen} onChange={choose}>
      <Chip value={KNOBS} variant="outline" size="xs">
        the active knobs
      </Chip>
      {profiles.map(({ name, description }) => (
        <Chip key={name} value={name} variant="outline" size="xs" title={description ?? undefined}>
          {name}
        </Chip>
      ))}
    </Chip.Group>
  </Group>
);

/** Until somebody chooses: what is active on the server, else the profile to begin with. */
export function preselected(state: Schemas["SteeringState"], profiles: readonly Schemas["ProfileEntry"][]): string {
  if (state.steering) return KNOBS;
  return (profiles.find(({ name }) => name === FIRST) ?? profiles[0])?.name ?? KNOBS;
}

type Knob = Schemas["SteeredFeature"];
const asked = ({ sae, index, strength, unit, mode }: Knob) => ({ sae, index, strength, unit, mode });

/** The active steering as a request says it: only what is heard, so that these answers are what a client would get. */
export function activeSteering(state: Schemas["SteeringState"]): Steered {
  const heard = state.on ? state.features.filter(({ is_heard }) => is_heard) : [];
  if (!state.steering || heard.length === 0) return { steering: null };
  return { steering: { ...state.steering, features: heard.map(asked) } as unknown as typeof state.steering };
}
