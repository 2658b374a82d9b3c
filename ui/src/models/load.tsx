/** Loading a model of the library: how, and whether it fits, before anything is changed. */
import { Button, Group, Modal, NumberInput, Select, Stack } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Failed } from "@/components/states";
import { said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { asFailure } from "@/lib/failure";
import { client, status } from "@/lib/queries";
import { Memory } from "./memory";
import { estimate } from "./queries";

type Wanted = Schemas["EstimateBody"];

export const LoadModel = ({ id, close }: { id: string; close: () => void }) => (
  <Modal opened onClose={close} title={`Load ${id}`} size="lg">
    <Form id={id} close={close} />
  </Modal>
);

function Form({ id, close }: { id: string; close: () => void }) {
  const [wanted, setWanted] = useState<Wanted>({ id });
  const change = (what: Partial<Wanted>) => setWanted({ ...wanted, ...what });
  const room = useQuery(estimate(wanted));
  const load = useMutation({
    mutationFn: (force: boolean) => told(api.POST("/api/models/load", { body: { ...asLoad(wanted), force } })),
    onMutate: close, // how far it is shows on the page; it goes on without this dialog
    onSuccess: (state) => {
      client.setQueryData(status.queryKey, state);
      said(`${id} is loaded.`);
    },
    onError: (thrown) => said(asFailure(thrown).message),
  });
  const fits = room.data?.verdict !== "does_not_fit";
  return (
    <Stack>
      <Group grow>
        <Select
          label="Quantization"
          description="Through bitsandbytes, of the same files"
          data={["none", "8bit", "4bit"]}
          value={wanted.quantization ?? "none"}
          allowDeselect={false}
          onChange={(value) => change({ quantization: value as Wanted["quantization"] })}
        />
        <Select
          label="Numbers"
          description="auto: what the device does best"
          data={["auto", "float32", "bfloat16", "float16"]}
          value={wanted.dtype ?? "auto"}
          allowDeselect={false}
          onChange={(value) => change({ dtype: value as Wanted["dtype"] })}
        />
      </Group>
      <Group grow>
        <Whole
          label="Context"
          description="Tokens of one conversation"
          value={wanted.context}
          set={(context) => change({ context })}
          most={2 ** 24}
        />
        <Whole
          label="Slots"
          description="Requests that run at once"
          value={wanted.slots}
          set={(slots) => change({ slots })}
          most={256}
        />
      </Group>
      {room.data && <Memory estimate={room.data} />}
      {room.error && <Failed thrown={room.error} />}
      <Group>
        <Button onClick={() => load.mutate(false)} disabled={!fits}>
          Load
        </Button>
        {!fits && (
          <Button color="red.8" onClick={() => load.mutate(true)}>
            Load anyway
          </Button>
        )}
      </Group>
    </Stack>
  );
}

function asLoad({ id, quantization, dtype, context, slots }: Wanted) {
  return { id, quantization, dtype, context, slots };
}

interface WholeProps {
  label: string;
  description: string;
  value?: number | null;
  set: (value: number | null) => void;
  most: number;
}

const Whole = ({ label, description, value, set, most }: WholeProps) => (
  <NumberInput
    label={label}
    description={description}
    placeholder="as the server is set"
    value={value ?? ""}
    onChange={(typed) => set(typeof typed === "number" ? typed : null)}
    allowDecimal={false}
    min={1}
    max={most}
  />
);
