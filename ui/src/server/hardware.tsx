/** What the server runs on, why it is the CPU if it is, and whether all is well. */
import { Alert, Card, SimpleGrid, Stack, Table, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Failed, Loading } from "@/components/states";
import type { Schemas } from "@/lib/api";
import { bytes } from "@/lib/numbers";
import { hardware, status } from "@/lib/queries";

type Facts = [string, string | null][];

export function HardwarePanel() {
  const machine = useQuery({ ...hardware, refetchInterval: 5000 });
  const server = useQuery(status);
  const error = machine.error ?? server.error;
  if (error) return <Failed thrown={error} retry={() => void machine.refetch()} />;
  if (!machine.data || !server.data) return <Loading />;
  const { reason } = machine.data;
  return (
    <Stack>
      {reason && (
        <Alert variant="outline" title={reason.message}>
          {reason.fix}
        </Alert>
      )}
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <FactsCard title="Health" facts={healthOf(server.data)} />
        <FactsCard title="Machine" facts={machineOf(machine.data)} />
        {machine.data.gpus.map((gpu) => (
          <FactsCard key={gpu.id} title={`GPU ${gpu.number}: ${gpu.name}`} facts={gpuOf(gpu)} />
        ))}
        {server.data.model && <FactsCard title="Memory of the model" facts={memoryOf(server.data.model)} />}
      </SimpleGrid>
    </Stack>
  );
}

const healthOf = (server: Schemas["ServerStatus"]): Facts => [
  ["Version", server.version],
  ["Status", server.status],
  ["Given up", server.degraded],
  ["Note", server.notice],
  ["Last failure", server.cause?.message ?? null],
];

const machineOf = ({ cpu, memory, home, torch, driver, driver_cuda }: Schemas["Hardware"]): Facts => [
  ["Processor", `${cpu.name}, ${cpu.cores ?? "?"} cores, ${cpu.threads} threads`],
  ["Memory", `${bytes(memory.available)} of ${bytes(memory.total)} free, ${bytes(memory.ours)} ours`],
  ["Disk of the library", `${bytes(home.free)} of ${bytes(home.total)} free`],
  [
    "torch",
    torch && `${torch.torch}${torch.built_for ? ` for CUDA ${torch.built_for}` : ""}, ${torch.threads} threads`,
  ],
  ["Driver", driver && `${driver}${driver_cuda ? `, up to CUDA ${driver_cuda}` : ""}`],
];

const gpuOf = (gpu: Schemas["Gpu"]): Facts => [
  ["Memory", `${bytes(gpu.used)} of ${bytes(gpu.total)} used`],
  ["Ours", gpu.ours === null ? null : bytes(gpu.ours)],
  ["Temperature", gpu.temperature === null ? null : `${gpu.temperature} °C`],
];

const memoryOf = ({ facts, estimate }: Schemas["ModelStatus"]): Facts => [
  ["Device", `${facts.device}, ${facts.dtype}`],
  ["Runner", `${facts.runner}, ${facts.slots} at once${facts.runner_reason && `: ${facts.runner_reason}`}`],
  ["Weights", facts.memory && `${facts.weights}, ${bytes(facts.memory.weights)}`],
  ["Cache, at most", facts.memory?.kv_cache != null ? bytes(facts.memory.kv_cache) : null],
  ["Process", facts.memory?.process != null ? bytes(facts.memory.process) : null],
  ["Expected", estimate && estimate.total !== null ? `${bytes(estimate.total)}: ${estimate.advice}` : null],
];

const FactsCard = ({ title, facts }: { title: string; facts: Facts }) => (
  <Card withBorder component="section" aria-label={title}>
    <Title order={2} size="h5">
      {title}
    </Title>
    <Table aria-label={title} withRowBorders={false} verticalSpacing={2}>
      <Table.Tbody>
        {facts
          .filter(([, value]) => value)
          .map(([name, value]) => (
            <Table.Tr key={name}>
              <Table.Th scope="row" w={150} style={{ verticalAlign: "top" }}>
                {name}
              </Table.Th>
              <Table.Td style={{ overflowWrap: "anywhere" }}>{value}</Table.Td>
            </Table.Tr>
          ))}
      </Table.Tbody>
    </Table>
  </Card>
);
