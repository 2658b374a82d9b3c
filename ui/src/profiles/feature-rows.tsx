/** The features of a profile as a table that can be changed. */
import { ActionIcon, Button, NumberInput, Select, Table, TextInput } from "@mantine/core";
import { IconTrash } from "@tabler/icons-react";
import type { Schemas } from "@/lib/api";

type Feature = Schemas["ProfileFeature"];

interface Props {
  features: readonly Feature[];
  saes: readonly string[];
  change: (features: Feature[]) => void;
}

const MODES = ["add", "clamp", "min_clamp", "scale", "ablate"];
const UNITS = ["raw", "norm", "max_act"];

export function FeatureRows({ features, saes, change }: Props) {
  const set = (at: number, what: Partial<Feature>) =>
    change(features.map((feature, other) => (other === at ? { ...feature, ...what } : feature)));
  return (
    <Table.ScrollContainer minWidth={620} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
      <Table aria-label="Features">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Index</Table.Th>
            <Table.Th>Label</Table.Th>
            <Table.Th>Strength</Table.Th>
            <Table.Th>Unit</Table.Th>
            <Table.Th>Mode</Table.Th>
            {saes.length > 1 && <Table.Th>SAE</Table.Th>}
            <Table.Th aria-label="Remove" />
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {features.map((feature, at) => (
            <Table.Tr key={at}>
              <Table.Td>
                <NumberInput
                  size="xs"
                  w={90}
                  hideControls
                  allowDecimal={false}
                  min={0}
                  aria-label={`Index of feature ${at + 1}`}
                  value={feature.index}
                  onChange={(index) => typeof index === "number" && set(at, { index })}
                />
              </Table.Td>
              <Table.Td>
                <TextInput
                  size="xs"
                  aria-label={`Label of feature ${at + 1}`}
                  value={feature.label ?? ""}
                  onChange={(event) => set(at, { label: event.currentTarget.value || null })}
                />
              </Table.Td>
              <Table.Td>
                <NumberInput
                  size="xs"
                  w={90}
                  hideControls
                  aria-label={`Strength of feature ${at + 1}`}
                  disabled={feature.mode === "ablate"}
                  value={feature.strength ?? 0}
                  onChange={(strength) => typeof strength === "number" && set(at, { strength })}
                />
              </Table.Td>
              <Table.Td>
                <Select
                  size="xs"
                  w={100}
                  aria-label={`Unit of feature ${at + 1}`}
                  data={UNITS}
                  value={feature.unit ?? "raw"}
                  allowDeselect={false}
                  onChange={(unit) => unit && set(at, { unit: unit as Feature["unit"] })}
                />
              </Table.Td>
              <Table.Td>
                <Select
                  size="xs"
                  w={110}
                  aria-label={`Mode of feature ${at + 1}`}
                  data={MODES}
                  value={feature.mode ?? "add"}
                  allowDeselect={false}
                  onChange={(mode) => mode && set(at, { mode: mode as Feature["mode"] })}
                />
              </Table.Td>
              {saes.length > 1 && (
                <Table.Td>
                  <Select
                    size="xs"
                    aria-label={`SAE of feature ${at + 1}`}
                    data={saes}
                    value={feature.sae ?? null}
                    onChange={(sae) => set(at, { sae })}
                  />
                </Table.Td>
              )}
              <Table.Td>
                <ActionIcon
                  variant="default"
                  aria-label={`Remove feature ${feature.index}`}
                  onClick={() => change(features.filter((_, other) => other !== at))}
                >
                  <IconTrash size={16} aria-hidden />
                </ActionIcon>
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      <Button
        size="xs"
        variant="default"
        onClick={() => change([...features, { index: 0, strength: 0, sae: features.at(-1)?.sae ?? saes[0] }])}
      >
        Add a feature
      </Button>
    </Table.ScrollContainer>
  );
}
