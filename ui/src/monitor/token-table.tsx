/** The same as the coloured tokens, in numbers. */
import { Table } from "@mantine/core";
import type { Token } from "@/components/heat-map";
import { short } from "@/lib/numbers";

const MOST = 1000;

export const TokenTable = ({ tokens }: { tokens: readonly Token[] }) => (
  <Table.ScrollContainer minWidth={360} mah={480} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
    <Table stickyHeader aria-label="Tokens and activations">
      <Table.Thead>
        <Table.Tr>
          <Table.Th>#</Table.Th>
          <Table.Th>Token</Table.Th>
          <Table.Th>Activation</Table.Th>
          <Table.Th>After steering</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {tokens.slice(0, MOST).map((token, at) => (
          <Table.Tr key={at}>
            <Table.Td>{at}</Table.Td>
            <Table.Td>{token.text === null ? "▢" : JSON.stringify(token.text)}</Table.Td>
            <Table.Td>{token.value === null ? "not read" : short(token.value)}</Table.Td>
            <Table.Td>{token.after == null ? "" : short(token.after)}</Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
      {tokens.length > MOST && (
        <Table.Caption>
          The first {MOST}; the export has all {tokens.length}.
        </Table.Caption>
      )}
    </Table>
  </Table.ScrollContainer>
);
