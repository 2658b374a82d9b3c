/** The layers that there are SAEs for, as a row of switches: one is chosen, or all. */
import { Chip, Group, Text } from "@mantine/core";

interface Props {
  layers: readonly number[];
  chosen: number | null;
  choose: (layer: number | null) => void;
}

const ALL = "all";

export const LayerMap = ({ layers, chosen, choose }: Props) => (
  <Group gap={6} role="group" aria-label="Layer">
    <Text size="sm">Layer</Text>
    <Chip.Group
      value={chosen === null ? ALL : String(chosen)}
      onChange={(value) => choose(value === ALL ? null : Number(value))}
    >
      {[ALL, ...layers.map(String)].map((layer) => (
        <Chip key={layer} value={layer} size="xs" variant="outline">
          {layer}
        </Chip>
      ))}
    </Chip.Group>
  </Group>
);
