/** The strongest scale at which answers stay coherent, and turning the knobs to it. */
import { Button, Card, Group, Stack, Text } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { Failed } from "@/components/states";
import { said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { useTurn, type Knob } from "@/lib/knobs";
import { short } from "@/lib/numbers";

interface Props {
  asked: Schemas["CalibrateRequest"];
  knobs: readonly Knob[];
}

export function Calibrated({ asked, knobs }: Props) {
  const turn = useTurn();
  const calibrate = useMutation({ mutationFn: () => told(api.POST("/api/calibrate", { body: asked })) });
  const found = calibrate.data;
  const apply = ({ scale, strengths }: Schemas["SteeringCalibration"]) =>
    turn.mutate(
      {
        features: strengths
          .filter(({ mode }) => mode !== "ablate")
          .flatMap(({ sae, index, strength }) =>
            knobs
              .filter((knob) => knob.index === index && (sae === null || knob.sae === sae))
              .map((knob) => ({ sae: knob.sae, index, strength })),
          ),
      },
      { onSuccess: () => said(`The knobs are × ${short(scale!)} now; undo takes it back.`) },
    );
  return (
    <Card withBorder component="section" aria-label="Advised strength">
      <Stack gap="xs">
        <Group>
          <Button variant="default" loading={calibrate.isPending} onClick={() => calibrate.mutate()}>
            Which strength is advised?
          </Button>
          <Text size="sm">The strongest at which the answers stay coherent; it takes some answers to find.</Text>
        </Group>
        {calibrate.error && <Failed thrown={calibrate.error} />}
        {found && (
          <>
            <Text size="sm" role="status">
              {found.scale === null ? "None was found." : `× ${short(found.scale)}.`} {found.note}
            </Text>
            {found.scale !== null && (
              <Group>
                <Button size="xs" onClick={() => apply(found)} loading={turn.isPending}>
                  Turn the knobs to it
                </Button>
              </Group>
            )}
          </>
        )}
      </Stack>
    </Card>
  );
}
