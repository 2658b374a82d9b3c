/** The strength of one knob: a slider that grows from nought, an exact number, and what it amounts to. */
import { Box, Group, NumberInput, Slider, Stack, Text } from "@mantine/core";
import { useState, type KeyboardEvent } from "react";
import { percent, short, signed } from "@/lib/numbers";
import { placeOf, rounded, strengthAt, zoneEnds, zoneOf } from "./scale";

interface Props {
  name: string;
  strength: number;
  /** Of the strength, in its unit. */
  range: number;
  /** Strength 1 as a share of the usual residual norm; null: what the mode adds depends on the token. */
  share: number | null;
  /** Settles once the server has taken it, or has refused it. */
  commit: (strength: number) => Promise<unknown>;
}

const STEPS = 1000;

export function Strength({ name, strength, range, share, commit }: Props) {
  const [draft, setDraft] = useState<number | null>(null);
  const shown = draft ?? strength;
  const at = (place: number) => rounded(strengthAt(place / STEPS, range));
  const release = async (value: number) => {
    setDraft(value); // until the server has answered: keys that come meanwhile go on from here
    if (value !== strength) await commit(value);
    setDraft((now) => (now === value ? null : now));
  };
  const pressed = (event: KeyboardEvent) => {
    const next = afterKey(event, shown, range);
    if (next === null) return;
    event.preventDefault();
    event.stopPropagation();
    void release(next);
  };
  return (
    <Stack gap={4}>
      <Group gap="xs" wrap="nowrap">
        <Box flex={1} onKeyDownCapture={pressed} onDoubleClick={() => void release(0)}>
          <Slider
            min={-STEPS}
            max={STEPS}
            step={1}
            startPointValue={0}
            value={Math.round(placeOf(shown, range) * STEPS)}
            scale={at}
            onChange={(place) => setDraft(at(place))}
            onChangeEnd={(place) => void release(at(place))}
            label={signed}
            thumbLabel={`Strength of ${name}`}
          />
          {share !== null && <Zones range={range} share={share} />}
        </Box>
        <Exact name={name} strength={shown} release={release} />
      </Group>
      {share !== null && (
        <Text size="xs">
          {percent(Math.abs(shown * share))} of ‖h‖: <strong>{zoneOf(shown * share)}</strong>
        </Text>
      )}
    </Stack>
  );
}

/** The zones below the track: plain in the middle, denser the further out; what the number is in is said in words. */
function Zones({ range, share }: { range: number; share: number }) {
  const places = [-1, ...zoneEnds(range, share), 1];
  return (
    <div className="zones" aria-hidden>
      {places.slice(1).map((end, at) => {
        const from = places[at]!;
        const zone = zoneOf(strengthAt((from + end) / 2, range) * share);
        return <span key={end} data-zone={zone} title={zone} style={{ flexGrow: end - from }} />;
      })}
    </div>
  );
}

/** Arrows go a hundredth of the way, with Shift a tenth; Page doubles and halves; Home and End are the ends; 0 is 0. */
function afterKey({ key, shiftKey }: KeyboardEvent, strength: number, range: number): number | null {
  const by = (step: number) => {
    const place = placeOf(strength, range) + (shiftKey ? 10 : 1) * step;
    return rounded(strengthAt(Math.max(-1, Math.min(1, place)), range));
  };
  switch (key) {
    case "ArrowRight":
    case "ArrowUp":
      return by(0.01);
    case "ArrowLeft":
    case "ArrowDown":
      return by(-0.01);
    case "PageUp":
      return strength * 2;
    case "PageDown":
      return strength / 2;
    case "Home":
      return -range;
    case "End":
      return range;
    case "0":
      return 0;
    default:
      return null;
  }
}

function Exact({
  name,
  strength,
  release,
}: Pick<Props, "name" | "strength"> & { release: (value: number) => Promise<void> }) {
  const [typed, setTyped] = useState<string | number | null>(null);
  const done = () => {
    if (typeof typed === "number" && Number.isFinite(typed)) void release(typed);
    setTyped(null);
  };
  return (
    <NumberInput
      w={88}
      size="xs"
      hideControls
      aria-label={`Exact strength of ${name}`}
      value={typed ?? Number(short(strength))}
      onChange={setTyped}
      onBlur={done}
      onKeyDown={(event) => event.key === "Enter" && done()}
    />
  );
}
