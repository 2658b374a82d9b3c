/** Everything by a few letters (Ctrl+K), the keys that do the most frequent things, and what they are (?). */
import { Kbd, Modal, Table } from "@mantine/core";
import { useDisclosure, useHotkeys } from "@mantine/hooks";
import { Spotlight, type SpotlightActionData } from "@mantine/spotlight";
import {
  IconAdjustmentsOff,
  IconArrowBackUp,
  IconArrowForwardUp,
  IconBookmark,
  IconKeyboard,
} from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useClear, useTurn, useUndo } from "@/lib/knobs";
import { profiles, steering } from "@/lib/queries";
import { useActivate, useDeactivate } from "@/profiles/changing";
import { PLACES } from "./places";

const KEYS = [
  ["Ctrl K", "Everything by a few letters"],
  ["k", "The knobs, where a page has them"],
  [".", "Steering off and on again"],
  ["Ctrl Z", "Take back the last turn of a knob"],
  ["Ctrl Shift Z", "Do it again"],
  ["?", "These keys"],
] as const;

export function Palette() {
  const [isHelp, help] = useDisclosure(false);
  const { data: state } = useQuery(steering);
  const saved = useQuery(profiles()).data?.profiles ?? [];
  const [turn, undo, redo, clear] = [useTurn(), useUndo("undo"), useUndo("redo"), useClear()];
  const [activate, deactivate] = [useActivate(), useDeactivate()];
  const go = useNavigate();
  const flip = () => state?.steering && turn.mutate({ on: !state.on });
  useHotkeys([
    [".", flip],
    ["mod+Z", () => state?.undo && undo.mutate()],
    ["mod+shift+Z", () => state?.redo && redo.mutate()],
    ["shift+?", help.toggle],
    ["?", help.toggle],
  ]);
  const actions: SpotlightActionData[] = [
    ...PLACES.map(({ to, label, icon: Icon }) => ({
      id: to,
      label,
      description: "Page",
      leftSection: <Icon size={18} aria-hidden />,
      onClick: () => void go({ to }),
    })),
    ...[
      { id: "flip", label: state?.on ? "Steering off" : "Steering on", icon: IconAdjustmentsOff, act: flip },
      { id: "undo", label: "Undo the last turn", icon: IconArrowBackUp, act: () => state?.undo && undo.mutate() },
      { id: "redo", label: "Redo", icon: IconArrowForwardUp, act: () => state?.redo && redo.mutate() },
      { id: "clear", label: "Clear the knobs", icon: IconAdjustmentsOff, act: () => clear.mutate() },
      { id: "base", label: "No profile: the base model", icon: IconBookmark, act: () => deactivate.mutate() },
      { id: "keys", label: "Keys", icon: IconKeyboard, act: help.open },
    ].map(({ id, label, icon: Icon, act }) => ({
      id,
      label,
      leftSection: <Icon size={18} aria-hidden />,
      onClick: () => void act(),
    })),
    ...saved
      .filter(({ misfit }) => misfit === null)
      .map(({ name, description }) => ({
        id: `profile ${name}`,
        label: `Activate ${name}`,
        description,
        leftSection: <IconBookmark size={18} aria-hidden />,
        onClick: () => activate.mutate(name),
      })),
  ];
  return (
    <>
      <Spotlight
        actions={actions}
        shortcut="mod+K"
        limit={12}
        nothingFound="Nothing is called so"
        searchProps={{ placeholder: "A page, a profile, something to do", "aria-label": "Search" }}
      />
      <Modal opened={isHelp} onClose={help.close} title="Keys">
        <Table aria-label="Keys">
          <Table.Tbody>
            {KEYS.map(([key, meaning]) => (
              <Table.Tr key={key}>
                <Table.Td>
                  <Kbd>{key}</Kbd>
                </Table.Td>
                <Table.Td>{meaning}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Modal>
    </>
  );
}
