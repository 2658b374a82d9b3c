/** The steering rack: every knob that is turned on the server, and what they add up to. */
import { Alert, Button, Group, Stack, Text, Title } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { IconArrowBackUp, IconArrowForwardUp } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { FindFeature } from "@/components/find-feature";
import { Empty, Failed, Loading } from "@/components/states";
import { said } from "@/components/toast";
import { useClear, useSteer, useUndo, type Knob } from "@/lib/knobs";
import { percent } from "@/lib/numbers";
import { status, steering } from "@/lib/queries";
import { KnobCard } from "./knob";
import { SaveAs } from "./save";

export function Rack() {
  const { data: state, error, refetch } = useQuery(steering);
  const { data: server } = useQuery(status);
  const [undo, redo, clear] = [useUndo("undo"), useUndo("redo"), useClear()];
  const steer = useSteer();
  const [isSaving, saving] = useDisclosure(false);
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!state || !server) return <Loading />;

  const removed = (knob: Knob) => {
    const id = said(
      <Group justify="space-between">
        <span>Removed {knob.label ?? `feature ${knob.index}`}</span>
        <Button
          size="xs"
          variant="default"
          onClick={() => undo.mutate(undefined, { onSuccess: () => notifications.hide(id) })}
        >
          Undo
        </Button>
      </Group>,
    );
  };
  return (
    <Stack gap="sm">
      <Group justify="space-between">
        <Title order={2} size="h5">
          Knobs
        </Title>
        <Text size="sm">
          {state.profile ?? (state.steering ? "not saved" : "none")}
          {state.is_modified && " ● modified"}
        </Text>
      </Group>
      <Group gap="xs">
        <Button
          size="xs"
          variant="default"
          leftSection={<IconArrowBackUp size={14} aria-hidden />}
          disabled={!state.undo}
          onClick={() => undo.mutate()}
        >
          Undo{state.undo > 0 && ` (${state.undo})`}
        </Button>
        <Button
          size="xs"
          variant="default"
          leftSection={<IconArrowForwardUp size={14} aria-hidden />}
          disabled={!state.redo}
          onClick={() => redo.mutate()}
        >
          Redo{state.redo > 0 && ` (${state.redo})`}
        </Button>
        <Button size="xs" variant="default" disabled={!state.steering} onClick={() => clear.mutate()}>
          Clear
        </Button>
        <Button size="xs" disabled={!state.steering} onClick={saving.open}>
          Save as profile…
        </Button>
      </Group>
      {!state.on && <Alert variant="outline">Steering is switched off: the knobs are kept, and do nothing.</Alert>}
      {state.warnings.map((warning) => (
        <Alert key={warning} variant="outline" color="orange" role="status">
          {warning}
        </Alert>
      ))}
      {state.hooks.map((hook) => (
        <Text key={hook.hook_point} size="xs">
          {hook.hook_point}:{" "}
          {hook.delta_share === null ? "nothing fixed is added" : `‖delta‖ ${percent(hook.delta_share)} of ‖h‖`}
          {hook.varies && ", and more where the token asks for it"}
        </Text>
      ))}
      {server.saes.length === 0 ? (
        <Empty
          title="No SAE is attached"
          action={
            <Button component={Link} to="/saes">
              Choose an SAE
            </Button>
          }
        >
          A knob is a feature of an SAE.
        </Empty>
      ) : (
        <FindFeature
          label="Add a feature"
          saes={server.saes.filter((sae) => sae.steerable)}
          chosen={(sae, index) => void steer(sae, index)}
        />
      )}
      {state.features.map((knob) => (
        <KnobCard
          key={`${knob.sae} ${knob.index}`}
          knob={knob}
          hook={state.hooks.find(({ sae }) => sae === knob.sae)}
          removed={removed}
        />
      ))}
      <SaveAs isOpen={isSaving} close={saving.close} suggested={state.profile ?? ""} />
    </Stack>
  );
}
