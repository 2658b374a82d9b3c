/** One feature of the rack: how strongly it is pushed, in what way, and whether it is heard. */
import { ActionIcon, Anchor, Badge, Card, Group, Select, Stack, Text } from "@mantine/core";
import { IconEye, IconEyeOff, IconTrash, IconVolume, IconVolumeOff } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Sparkline } from "@/components/sparkline";
import type { Schemas } from "@/lib/api";
import { useTurn, useWatch, type Knob } from "@/lib/knobs";
import { signed } from "@/lib/numbers";
import { feature } from "@/lib/queries";
import { inUnit, rawPerUnit, UNITS, type Unit } from "./units";
import { rangeOf } from "./scale";
import { Strength } from "./strength";

const MODES = ["add", "clamp", "min_clamp", "scale", "ablate"];

interface Props {
  knob: Knob;
  hook?: Schemas["SteeredHook"];
  removed: (knob: Knob) => void;
}

export function KnobCard({ knob, hook, removed }: Props) {
  const turn = useTurn();
  const card = useQuery(feature(knob.sae, knob.index)).data;
  const watch = useWatch();
  const { sae, index } = knob;
  const name = knob.label ?? card?.label ?? `feature ${index}`;
  const turned = (what: Partial<Schemas["FeatureChange"]>) =>
    turn.mutateAsync({ features: [{ sae, index, ...what }] }).catch(() => undefined); // said by the mutation itself
  const change = (what: Partial<Schemas["FeatureChange"]>) => void turned(what);
  const norm = hook?.residual_norm ?? card?.strengths.half_norm ?? 100;
  const perUnit = rawPerUnit(knob.unit as Unit, norm, card?.max_act ?? null);
  const hasUnit = ["add", "clamp", "min_clamp"].includes(knob.mode);
  return (
    <Card withBorder padding="xs" component="section" aria-label={name} opacity={knob.is_heard ? 1 : 0.75}>
      <Stack gap={6}>
        <Group justify="space-between" wrap="nowrap" gap="xs">
          <Anchor
            renderRoot={(props) => <Link to="/features" search={{ sae, index }} {...props} />}
            size="sm"
            fw={600}
            truncate
            title={name}
          >
            {name}
          </Anchor>
          <Group gap={2} wrap="nowrap">
            <Act
              label={knob.muted ? `Unmute ${name}` : `Mute ${name}`}
              isOn={knob.muted}
              act={() => change({ muted: !knob.muted })}
            >
              {knob.muted ? <IconVolumeOff size={16} aria-hidden /> : <IconVolume size={16} aria-hidden />}
            </Act>
            <Act label={`Solo ${name}`} isOn={knob.solo} act={() => change({ solo: !knob.solo })}>
              S
            </Act>
            <Act label={`Watch ${name}`} isOn={watch.isWatched(sae, index)} act={() => watch.toggle(sae, index)}>
              {watch.isWatched(sae, index) ? <IconEye size={16} aria-hidden /> : <IconEyeOff size={16} aria-hidden />}
            </Act>
            <Act
              label={`Remove ${name}`}
              act={() => turn.mutate({ remove: [{ sae, index }] }, { onSuccess: () => removed(knob) })}
            >
              <IconTrash size={16} aria-hidden />
            </Act>
          </Group>
        </Group>
        {knob.mode !== "ablate" && (
          <Strength
            name={name}
            strength={knob.strength}
            range={hasUnit ? rangeOf(norm, card?.max_act ?? null, knob.strength * perUnit) / perUnit : 10}
            share={knob.mode === "add" ? perUnit / norm : null}
            commit={(strength) => turned({ strength })}
          />
        )}
        <Group gap="xs" wrap="nowrap">
          <Select
            size="xs"
            aria-label={`Mode of ${name}`}
            data={MODES}
            value={knob.mode}
            allowDeselect={false}
            onChange={(mode) => mode && change({ mode: mode as Schemas["FeatureChange"]["mode"] })}
          />
          {hasUnit && (
            <Select
              size="xs"
              aria-label={`Unit of ${name}`}
              data={UNITS.filter(({ value }) => value !== "max_act" || card?.max_act)}
              value={knob.unit}
              allowDeselect={false}
              onChange={(unit) => unit && change({ unit: unit as Unit, strength: inUnit(knob, unit as Unit) })}
            />
          )}
        </Group>
        {watch.isWatched(sae, index) && (
          <Group gap="xs">
            <Sparkline sae={sae} index={index} name={name} />
          </Group>
        )}
        <Text size="xs">
          <Badge size="xs" variant="default" tt="none">
            {index}
          </Badge>{" "}
          {[
            knob.raw !== null && `${signed(knob.raw)} raw`,
            knob.norm !== null && `${signed(knob.norm)} × norm`,
            knob.max_act !== null && `${signed(knob.max_act)} × max activation`,
          ]
            .filter(Boolean)
            .join(" · ")}
          {card?.neuronpedia && (
            <>
              {" · "}
              <Anchor href={card.neuronpedia} target="_blank" rel="noreferrer" size="xs">
                Neuronpedia
              </Anchor>
            </>
          )}
        </Text>
      </Stack>
    </Card>
  );
}

interface ActProps {
  label: string;
  isOn?: boolean;
  act: () => void;
  children: React.ReactNode;
}

const Act = ({ label, isOn, act, children }: ActProps) => (
  <ActionIcon
    size="sm"
    variant={isOn ? "filled" : "default"}
    aria-label={label}
    aria-pressed={isOn}
    title={label}
    onClick={act}
  >
    {children}
  </ActionIcon>
);
