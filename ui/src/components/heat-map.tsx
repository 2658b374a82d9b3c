/** A text whose tokens are coloured by how strongly a feature fires at them, and what is known of the chosen token. */
import { Button, Group, Stack, Text } from "@mantine/core";
import { useState, type KeyboardEvent } from "react";
import { percent, short } from "@/lib/numbers";
import { FeatureChip } from "./feature-chip";
import { heat } from "./heat";

export interface Token {
  /** null where the server keeps no texts. */
  text: string | null;
  /** null: not read here. */
  value: number | null;
  after?: number | null;
  top?: readonly { index: number; activation: number; label?: string | null }[];
  isGenerated?: boolean;
}

interface Props {
  sae: string;
  tokens: readonly Token[];
  /** What full colour means. */
  max: number;
  label: string;
}

const AT_ONCE = 1500;

export function HeatMap({ sae, tokens, max, label }: Props) {
  const [chosen, setChosen] = useState(0);
  const [hovered, setHovered] = useState<number | null>(null);
  const [shown, setShown] = useState(AT_ONCE);
  const at = Math.min(hovered ?? chosen, tokens.length - 1);
  const move = (event: KeyboardEvent<HTMLDivElement>) => {
    const next = { ArrowRight: chosen + 1, ArrowLeft: chosen - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (next === undefined || next < 0 || next >= Math.min(shown, tokens.length)) return;
    event.preventDefault();
    setChosen(next);
    event.currentTarget.querySelector<HTMLElement>(`[data-at="${next}"]`)?.focus();
  };
  return (
    <Stack gap="xs">
      <div
        role="listbox"
        aria-label={label}
        aria-orientation="horizontal"
        className="heat-map"
        onKeyDown={move}
        onMouseLeave={() => setHovered(null)}
      >
        {tokens.slice(0, shown).map((token, index) => (
          <span
            key={index}
            role="option"
            aria-selected={index === chosen}
            aria-label={`${named(token)}: ${token.value === null ? "not read" : short(token.value)}`}
            tabIndex={index === chosen ? 0 : -1}
            data-at={index}
            data-prompt={token.isGenerated === false || undefined}
            style={{
              backgroundColor: `color-mix(in srgb, var(--millm-heat) ${shade(token.value, max)}%, transparent)`,
            }}
            onMouseEnter={() => setHovered(index)}
            onFocus={() => setChosen(index)}
            onClick={() => setChosen(index)}
          >
            {token.text === null ? "▢" : visible(token.text)}
          </span>
        ))}
      </div>
      {shown < tokens.length && (
        <Button size="xs" variant="default" onClick={() => setShown(shown + AT_ONCE)}>
          Show {Math.min(AT_ONCE, tokens.length - shown)} more of {tokens.length} tokens
        </Button>
      )}
      {tokens[at] && <Told sae={sae} token={tokens[at]} at={at} max={max} />}
    </Stack>
  );
}

const named = (token: Token) => (token.text === null ? "a token whose text is not kept" : `token ${token.text}`);

/** A line's end is seen as well as done; a token of nothing has a place to point at. */
const visible = (text: string) => text.replace(/\n/g, "↵\n") || "·";

const shade = (value: number | null, max: number) => (100 * heat(value ?? 0, max)).toFixed(1);

function Told({ sae, token, at, max }: { sae: string; token: Token; at: number; max: number }) {
  return (
    <Stack gap={4} aria-live="polite" mih={64}>
      <Text size="sm">
        <strong>{token.text === null ? "▢" : JSON.stringify(token.text)}</strong> · token {at}
        {token.isGenerated === false && " of the prompt"} ·{" "}
        {token.value === null ? "not read" : `activation ${short(token.value)}`}
        {token.value !== null && max > 0 && ` (${percent(token.value / max)} of the maximum)`}
        {token.after != null && ` → ${short(token.after)} after steering`}
      </Text>
      {token.top && token.top.length > 0 && (
        <Group gap={6}>
          <Text size="sm">Strongest here:</Text>
          {token.top.slice(0, 10).map(({ index, activation, label }) => (
            <FeatureChip key={index} sae={sae} index={index} label={label} value={activation} />
          ))}
        </Group>
      )}
    </Stack>
  );
}
