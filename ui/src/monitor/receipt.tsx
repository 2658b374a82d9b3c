/** What a request was and what steered it, as its receipt tells it. */
import { Card, Table } from "@mantine/core";
import type { Schemas } from "@/lib/api";
import { clock, count, duration, percent } from "@/lib/numbers";

export const Receipt = ({ row }: { row: Schemas["RequestRecord"] }) => (
  <Card withBorder component="section" aria-label="Receipt">
    <Table aria-label="Receipt" withRowBorders={false} verticalSpacing={2}>
      <Table.Tbody>
        {facts(row).map(([name, value]) => (
          <Table.Tr key={name}>
            <Table.Th scope="row" w={170} style={{ verticalAlign: "top" }}>
              {name}
            </Table.Th>
            <Table.Td style={{ overflowWrap: "anywhere" }}>{value}</Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  </Card>
);

function facts(row: Schemas["RequestRecord"]): [string, string][] {
  const speed = row.first_token_seconds !== null && row.seconds > row.first_token_seconds;
  const perSecond = speed ? (row.completion_tokens - 1) / (row.seconds - row.first_token_seconds!) : 0;
  const all: [string, string | null][] = [
    ["Asked", `${clock(row.began)} by ${row.client}: ${row.endpoint}${row.streamed ? ", streamed" : ""}`],
    ["Model", row.model],
    ["Background task", row.task],
    ["Tokens", `${count(row.prompt_tokens)} read (${count(row.cached_tokens)} cached), ${row.completion_tokens} made`],
    [
      "Time",
      `${duration(row.seconds)}${row.first_token_seconds === null ? "" : `, first token ${duration(row.first_token_seconds)}`}`,
    ],
    ["Speed", perSecond > 0 ? `${perSecond.toFixed(1)} tokens/s` : null],
    ["Steered by", row.profile ?? (row.tokens_steered ? "knobs without a name" : "nothing")],
    [
      "Steered tokens",
      row.tokens_steered ? `${count(row.tokens_steered)}, ‖delta‖ ${percent(row.delta_norm_ratio)} of ‖h‖` : null,
    ],
    ["Steering", row.steering],
    ["Went without", row.degraded],
    ["End", row.end],
    ["Error", row.error],
    ["Kept", row.is_cut ? "not all of its tokens" : null],
    ["Id", row.id],
  ];
  return all.filter((fact): fact is [string, string] => Boolean(fact[1]));
}
