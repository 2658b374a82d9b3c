/** Where a question is written: Enter asks, Shift+Enter is a new line, Escape stops. */
import { Button, Group, NumberInput, Popover, Stack, Textarea } from "@mantine/core";
import { IconAdjustmentsHorizontal, IconPlayerStop, IconSend } from "@tabler/icons-react";
import type { KeyboardEvent } from "react";
import type { Sampling } from "./asking";

interface Props {
  draft: string;
  setDraft: (text: string) => void;
  sampling: Sampling;
  setSampling: (sampling: Sampling) => void;
  isWriting: boolean;
  send: () => void;
  stop: () => void;
}

export function Composer({ draft, setDraft, sampling, setSampling, isWriting, send, stop }: Props) {
  const pressed = (event: KeyboardEvent) => {
    if (event.key === "Escape") stop();
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };
  return (
    <Stack gap="xs">
      <Textarea
        label="Message"
        description="Enter asks, Shift+Enter is a new line, Escape stops."
        autosize
        minRows={2}
        maxRows={8}
        value={draft}
        onChange={(event) => setDraft(event.currentTarget.value)}
        onKeyDown={pressed}
        data-autofocus
        autoFocus
      />
      <Group gap="xs">
        {isWriting ? (
          <Button onClick={stop} color="red.8" leftSection={<IconPlayerStop size={16} aria-hidden />}>
            Stop
          </Button>
        ) : (
          <Button onClick={send} disabled={!draft.trim()} leftSection={<IconSend size={16} aria-hidden />}>
            Ask
          </Button>
        )}
        <SamplingMenu sampling={sampling} setSampling={setSampling} />
      </Group>
    </Stack>
  );
}

type SamplingProps = Pick<Props, "sampling" | "setSampling">;

function SamplingMenu({ sampling, setSampling }: SamplingProps) {
  const change = (name: keyof Sampling) => (value: string | number) => {
    if (typeof value === "number") setSampling({ ...sampling, [name]: value });
  };
  return (
    <Popover width={240} trapFocus withinPortal>
      <Popover.Target>
        <Button variant="default" leftSection={<IconAdjustmentsHorizontal size={16} aria-hidden />}>
          Sampling
        </Button>
      </Popover.Target>
      <Popover.Dropdown aria-label="Sampling">
        <Stack gap="xs">
          <NumberInput
            label="Seed"
            description="The same for every column"
            value={sampling.seed}
            onChange={change("seed")}
            allowDecimal={false}
            min={0}
            max={2 ** 31 - 1}
          />
          <NumberInput
            label="Temperature"
            value={sampling.temperature}
            onChange={change("temperature")}
            min={0}
            max={2}
            step={0.1}
          />
          <NumberInput
            label="Most tokens"
            value={sampling.max_tokens}
            onChange={change("max_tokens")}
            allowDecimal={false}
            min={1}
            max={8192}
          />
        </Stack>
      </Popover.Dropdown>
    </Popover>
  );
}
